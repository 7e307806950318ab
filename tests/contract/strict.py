"""Doubles of TensorRT's classes that refuse whatever the genuine ones would refuse.

`create_autospec(..., spec_set=True)` knows the names of a genuine class, so that a call of what a
version lacks is an error. It knows no more: the bindings are compiled, and what a method takes
stands only in its docstring. So that is read, and every call is held against it: number and names
of the arguments, and the type of each, also of what a double returns and of what is assigned to a
property.

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
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest.mock import create_autospec

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
    double = create_autospec(cls, spec_set=True, instance=True)
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            setattr(type(double), name, _property(trt, cls, name, member, behaviour))
        elif not name.startswith("_") and not isinstance(member, type) and callable(member):
            getattr(double, name).side_effect = functools.partial(_call, trt, cls, name, behaviour)
    for name in ("__bytes__", "__len__", "__getitem__", "__iter__"):
        if hasattr(type(behaviour), name):
            setattr(type(double), name, _special(behaviour, name))
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


def _call(
    trt: ModuleType, cls: type, name: str, behaviour: object, *args: Any, **kwargs: Any
) -> Any:
    where = f"{cls.__name__}.{name}"
    signature = check_call(trt, where, getattr(cls, name).__doc__, args, kwargs)
    if not hasattr(behaviour, name):
        raise ContractViolation(f"{where}: this double does not know what it does")
    result = getattr(behaviour, name)(*args, **kwargs)
    _check_result(trt, where, signature.returns, result)
    return result


def _property(
    trt: ModuleType, cls: type, name: str, genuine: property, behaviour: object
) -> property:
    where = f"{cls.__name__}.{name}"

    def read(_: Any) -> Any:
        if not hasattr(behaviour, name):
            raise ContractViolation(f"{where}: this double does not know its value")
        (signature,) = signatures(genuine.fget.__doc__) or (None,)
        if signature:
            _check_result(trt, where, signature.returns, getattr(behaviour, name))
        return getattr(behaviour, name)

    def write(_: Any, value: Any) -> None:
        if genuine.fset is None:
            raise ContractViolation(f"{where}: cannot be set")
        check_call(trt, where, genuine.fset.__doc__, (value,), {})
        setattr(behaviour, name, value)

    return property(read, write)


def _special(behaviour: object, name: str) -> Any:
    return lambda _, *args: getattr(behaviour, name)(*args)


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
