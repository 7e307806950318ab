"""docs/bundle-format.md, the code and the tests of the bundle format say the same."""

import re
from pathlib import Path

from irstd import bundle, container, manifest_json

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "bundle-format.md").read_text("utf-8")
SOURCES = (
    "sdk/container.py",
    "sdk/manifest_json.py",
    "sdk/bundle.py",
    "sdk/engine_record.py",
    "runtime/finished.py",
)
TESTS = ("test_container_hostile.py", "test_bundle_hostile.py", "test_engine_record_hostile.py")


def documented_rules() -> list[tuple[int, str, str]]:
    """Return number, rule and test of each row."""
    row = re.compile(r"^\| (\d+) \| `([a-z0-9-]+)` \| .+ \| `(\S+)` \|$", re.MULTILINE)
    return [(int(number), rule, test) for number, rule, test in row.findall(TEXT)]


def test_rules_are_numbered_and_unique() -> None:
    rules = documented_rules()
    assert [number for number, _, _ in rules] == list(range(1, len(rules) + 1))
    assert len({rule for _, rule, _ in rules}) == len(rules) > 50


def test_every_rule_is_in_the_code_and_the_other_way_round() -> None:
    code = "".join((ROOT / name).read_text("utf-8") for name in SOURCES)
    raised = set(re.findall(r'violation\(\s*"([a-z0-9-]+)"', code))
    raised |= set(re.findall(r"\(rule: ([a-z0-9-]+)\)", code))
    assert {rule for _, rule, _ in documented_rules()} == raised


def test_every_rule_has_the_test_it_names_and_the_other_way_round() -> None:
    tests = set()
    for name in TESTS:
        source = (ROOT / "tests" / "hostile" / name).read_text("utf-8")
        table = source[source.index("CASES: ") :]
        tests |= {
            f"test_rule[{rule}]" for rule in re.findall(r'^    "([a-z0-9-]+)": \[', table, re.M)
        }
        tests |= set(re.findall(r"def (test_member_changed\w+)", source))
    named = {rule: test for _, rule, test in documented_rules()}
    assert set(named.values()) == tests
    for rule, test in named.items():
        assert test == f"test_rule[{rule}]" or test.startswith("test_" + rule.replace("-", "_"))


def test_limits_and_patterns_are_the_ones_of_the_code() -> None:
    for module, name in (
        (container, "MAX_FILE_BYTES"),
        (container, "MAX_MEMBER_BYTES"),
        (container, "MAX_MEMBERS"),
        (container, "MAX_NAME_BYTES"),
        (manifest_json, "MAX_MANIFEST_BYTES"),
        (manifest_json, "MAX_NESTING"),
        (manifest_json, "MAX_SIDE_PX"),
    ):
        assert f"| `{name}` | {getattr(module, name)} |" in TEXT
    for pattern in bundle.MEMBER_PATTERNS:
        assert f"`{pattern.pattern}`" in TEXT.replace("\\|", "|")
