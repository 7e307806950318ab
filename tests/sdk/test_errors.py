"""The error tree is the one that its docstring draws, with the documented exit codes."""

import pickle
import re

import pytest

from irstd import errors

# interface.md, "Exit codes and errors".
EXIT_CODES = {
    "IrstdError": 1,
    "UsageError": 2,
    "MissingDependency": 3,
    "DeviceError": 3,
    "CheckpointError": 1,
    "ExportError": 1,
    "CalibrationError": 1,
    "BuildError": 1,
    "ParityFailed": 5,
    "BudgetExceeded": 4,
    "BundleError": 1,
    "BundleCorrupt": 1,
    "BundleMismatch": 6,
    "BenchmarkInvalid": 7,
    "InputError": 1,
}


def defined():
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }


def drawn():
    """The tree in the docstring: name -> (parent, exit code)."""
    tree, path = {}, {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^( {4,})([A-Z]\w+).*exit (\d+)", line)
        if match:
            depth = (len(match[1]) - 4) // 2
            path[depth] = match[2]
            tree[match[2]] = (path.get(depth - 1), int(match[3]))
    return tree


def test_the_drawn_tree_is_the_class_tree():
    tree = drawn()
    assert set(tree) == set(defined())
    for name, (parent, exit_code) in tree.items():
        error = defined()[name]
        assert error.exit_code == exit_code, name
        assert error.__bases__[0].__name__ == (parent or "Exception"), name


def test_exit_codes_are_the_documented_ones():
    assert {name: error.exit_code for name, error in defined().items()} == EXIT_CODES


def test_input_errors_are_value_errors_too():
    assert issubclass(errors.InputError, ValueError)
    assert [e for e in defined().values() if issubclass(e, ValueError)] == [errors.InputError]


@pytest.mark.parametrize("name", EXIT_CODES)
def test_every_error_is_documented_and_travels_between_processes(name):
    error = defined()[name]
    assert error.__doc__
    again = pickle.loads(pickle.dumps(error("message")))
    assert type(again) is error
    assert str(again) == "message"
