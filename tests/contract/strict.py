"""Doubles of TensorRT's classes that refuse whatever the genuine ones would refuse.

A double has the names of a genuine class and no others, so that a call of what a version lacks is
an error. The bindings are compiled, and what a method takes stands only in its docstring. So that
is read, and every call is held against it: number and names of the arguments, and the type of
each, also of what a double returns and of what is assigned to a property.

    class Config:                              # the behaviour: plain methods and attributes
        builder_optimization_level = 3
        def set_flag(self, flag): ...

    config = strict(trt, trt.IBuilderConfig, Config())
    config.set_flag("FP16")                    # ContractViolation: flag: got str

What the behaviour lacks, the double lacks too: calling it is a ContractViolation, never silence.
"""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_SCALARS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "float": (float, int),
    "typing.SupportsFloat": (float, int),
    "str": (str,),
    "bytes": (bytes,),
}
_INTEGERS = ("int", "typing.SupportsInt", "typing.SupportsIndex")
_BUFFERS = ("buffer", "typing_extensions.Buffer", "collections.abc.Buffer")
_ANYTHING = ("object", "capsule", "typing_extensions.CapsuleType", "types.CapsuleType", "Any")
_CALLABLES = ("Callable", "collections.abc.Callable", "function")
_SEQUENCES = ("List", "list", "Sequence", "collections.abc.Sequence")
_TUPLES = ("Tuple", "tuple")
_SPECIAL = ("__bytes__", "__len__", "__getitem__", "__iter__")
_PREFIX = re.compile(r"(tensorrt_\w+\.tensorrt\w*\.|nvinfer1::|nvonnxparser::)")
# Bound after the function that returns it, so its docstring has the name in C++.
_ALIASES = {"IParserError": "ParserError"}


class ContractViolation(AssertionError):
    """A call, a value or a double that the genuine class would not take."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method; `kind` as the docstring spells it, without the module."""

    name: str
    kind: str
    default: str | None


@dataclass(frozen=True)
class Signature:
    """One way of calling a method; `self` is left out."""

    parameters: tuple[Parameter, ...]
    returns: str


def strict(trt: ModuleType, cls: type, behaviour: object) -> Any:
    """Return a double of a genuine class.

    Args:
        trt: The genuine module that the class is from.
        cls: The class, such as trt.Builder.
        behaviour: Has the methods and attributes that the double is to have. What the genuine
            class does not let set cannot be set.

    Raises:
        ContractViolation: The behaviour has a public name that the genuine class lacks.
    """
    public = [name for name in dir(type(behaviour)) if not name.startswith("_")]
    public += [name for name in vars(behaviour) if not name.startswith("_")]
    if unknown := sorted({name for name in public if not hasattr(cls, name)}):
        raise ContractViolation(f"{cls.__name__} of {trt.__version__} has no {', '.join(unknown)}")
    special = tuple(name for name in _SPECIAL if hasattr(type(behaviour), name))
    double = _double_class(trt, cls, tuple(dir(cls)), special)()
    object.__setattr__(double, "_behaviour", behaviour)
    return double


def check_call(
    trt: ModuleType, where: str, doc: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Signature:
    """Hold a call against the signatures in a docstring.

    Args:
        trt: The genuine module.
        where: What is called, for the message.
        doc: Docstring of a compiled function or method.
        args: Positional arguments, without `self`.
        kwargs: Named ones.

    Returns:
        The signature that fits.

    Raises:
        ContractViolation: None fits; it says why.
    """
    found = signatures(doc)
    if not found:
        raise ContractViolation(f"{where}: its docstring has no signature: {doc!r}")
    refusals = []
    for signature in found:
        refusal = _refusal(trt, signature, args, kwargs)
        if refusal is None:
            return signature
        refusals.append(refusal)
    raise ContractViolation(f"{where} of TensorRT {trt.__version__}: {'; or '.join(refusals)}")


@functools.cache
def signatures(doc: str | None) -> tuple[Signature, ...]:
    """Read the signatures in a docstring as pybind11 writes them, also the overloaded ones."""
    lines = (doc or "").splitlines()
    heads = [re.match(r"(?:\d+\. )?\w*\((.*)\) -> (.+)$", line.strip()) for line in lines]
    read = [
        Signature(tuple(map(_parameter, _split(head[1])[1:])), _plain(head[2]))
        for head in heads
        if head and re.match(r"(self|arg0): ", head[1])
    ]
    return tuple(read)


def accepts(trt: ModuleType, kind: str, value: object) -> bool:
    """Whether a value may stand for a type that a docstring names.

    Raises:
        ContractViolation: The type is not understood, so nothing could be held against it.
    """
    if kind in _ANYTHING:
        return True
    if kind == "None":
        return value is None
    if kind in _CALLABLES:
        return callable(value)
    if kind in _INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in _SCALARS:
        return isinstance(value, _SCALARS[kind])
    if kind in _BUFFERS:
        return isinstance(value, bytes | bytearray | memoryview | trt.IHostMemory)
    if " | " in kind:
        return any(accepts(trt, part, value) for part in kind.split(" | "))
    outer, _, inner = kind.partition("[")
    if outer in _SEQUENCES:
        members = isinstance(value, list | tuple)
        return members and all(accepts(trt, inner[:-1], item) for item in value)  # type: ignore[attr-defined]
    if outer in _TUPLES:
        kinds = _split(inner[:-1])
        same = isinstance(value, tuple) and len(value) == len(kinds)
        return same and all(map(functools.partial(accepts, trt), kinds, value))  # type: ignore[call-overload]
    return isinstance(value, _resolve(trt, kind))


@functools.cache
def _double_class(
    trt: ModuleType, cls: type, names: tuple[str, ...], special: tuple[str, ...]
) -> type:
    """Return the class of a genuine class's doubles; reading all its members takes a while.

    Args:
        trt: The genuine module.
        cls: The genuine class, which a double says it is an instance of.
        names: Of all members: a test may take some away.
        special: Methods that Python calls, which the behaviour has.
    """
    members: dict[str, Any] = {
        "__slots__": ("__weakref__", "_behaviour"),
        "__class__": property(lambda _: cls),
    }
    for name in names:
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            members[name] = _property(trt, cls, name, member)
        elif not name.startswith("_"):
            is_method = callable(member) and not isinstance(member, type)
            members[name] = _method(trt, cls, name) if is_method else member
    members |= {name: _special(name) for name in special}
    return type(cls.__name__, (), members)


def _method(trt: ModuleType, cls: type, name: str) -> Callable[..., Any]:
    where = f"{cls.__name__}.{name}"

    def call(double: Any, *args: Any, **kwargs: Any) -> Any:
        signature = check_call(trt, where, getattr(cls, name).__doc__, args, kwargs)
        if not hasattr(double._behaviour, name):
            raise ContractViolation(f"{where}: this double does not know what it does")
        result = getattr(double._behaviour, name)(*args, **kwargs)
        _check_result(trt, where, signature.returns, result)
        return result

    return call


def _property(trt: ModuleType, cls: type, name: str, genuine: property) -> property:
    where = f"{cls.__name__}.{name}"

    def read(double: Any) -> Any:
        if not hasattr(double._behaviour, name):
            raise ContractViolation(f"{where}: this double does not know its value")
        value = getattr(double._behaviour, name)
        (signature,) = signatures(genuine.fget.__doc__) or (None,)
        if signature:
            _check_result(trt, where, signature.returns, value)
        return value

    def write(double: Any, value: Any) -> None:
        if genuine.fset is None:
            raise ContractViolation(f"{where}: cannot be set")
        check_call(trt, where, genuine.fset.__doc__, (value,), {})
        setattr(double._behaviour, name, value)

    return property(read, write)


def _special(name: str) -> Callable[..., Any]:
    return lambda double, *args: getattr(double._behaviour, name)(*args)


def _check_result(trt: ModuleType, where: str, kind: str, result: object) -> None:
    if kind == "None" or not (result is None or accepts(trt, kind, result)):
        if result is None:
            return
        raise ContractViolation(f"{where}: the double returns {_name(result)}; genuine: {kind}")


def _refusal(
    trt: ModuleType, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Return why a call does not fit a signature; None where it does."""
    names = [parameter.name for parameter in signature.parameters]
    if len(args) > len(names):
        return f"got {len(args)} arguments, takes {len(names)}"
    given = dict(zip(names, args, strict=False))
    if twice := sorted(given.keys() & kwargs.keys()):
        return f"{twice[0]} is given twice"
    if unknown := sorted(kwargs.keys() - set(names)):
        return f"knows no argument {unknown[0]}"
    given |= kwargs
    for parameter in signature.parameters:
        if parameter.name not in given:
            if parameter.default is None:
                return f"{parameter.name} is not given"
            continue
        value = given[parameter.name]
        if value is None and parameter.default == "None":
            continue
        if not accepts(trt, parameter.kind, value):
            return f"{parameter.name}: got {_name(value)}, wanted {parameter.kind}"
    return None


def _parameter(text: str) -> Parameter:
    name, _, rest = text.partition(": ")
    kind, is_given, default = rest.partition(" = ")
    return Parameter(name, _plain(kind), default if is_given else None)


def _split(text: str) -> list[str]:
    """Split at the commas that are in no bracket and no string."""
    parts, depth, quoted, start = [], 0, False, 0
    for position, character in enumerate(text):
        quoted ^= character == "'"
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0 and not quoted:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()] if text.strip() else []


def _plain(kind: str) -> str:
    return _PREFIX.sub("", kind).strip()


def _resolve(trt: ModuleType, kind: str) -> type:
    found: Any = trt
    for part in kind.split("."):
        found = getattr(found, _ALIASES.get(part, part), None)
    if not isinstance(found, type):
        raise ContractViolation(f"the type {kind} of a signature is not understood")
    return found


def _name(value: object) -> str:
    return f"{value.__class__.__name__} {value!r}"[:80]
