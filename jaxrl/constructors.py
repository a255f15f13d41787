"""Constructors: functions whose keyword arguments are a configuration, and which make an agent, a replay or the like.

What each makes says how it was made, so that it can be shown, and recorded by a run.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from jaxrl import checks

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of a function. Each is equal to itself alone, so that a record that holds one can still be hashed.

    Attributes:
      function: what was called.
      arguments: the arguments, defaults among them.
      defaults: the defaults that the function has.
      parts: of the record that it returned, all but the call.
    """

    function: Callable
    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any]
    parts: tuple = ()

    def __repr__(self) -> str:
        return self._text(self.arguments)

    @property
    def short(self) -> str:
        """The call without the arguments that are as they are by default."""
        same = {k for k, default in self.defaults.items() if _same(self.arguments[k], default)}
        return self._text({k: value for k, value in self.arguments.items() if k not in same})

    def _text(self, arguments: Mapping[str, Any]) -> str:
        bare = {k for k, value in arguments.items() if hasattr(value, "made_by")} - self.defaults.keys()
        texts = [_text(value) if name in bare else f"{name}={_text(value)}" for name, value in arguments.items()]
        return f"{self.function.__name__}({', '.join(texts)})"


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _text(value: Any) -> str:
    """A value within a call: what was made by another call as that one, and a function by its name."""
    if call_of(value):
        return repr(value if hasattr(value, "_replace") else value.made_by)
    return getattr(value, "__qualname__", None) or checks.shown(value)


def recorded(function: Function) -> Function:
    """Decorates a function that makes a record, such as a `Replay`, or a function: that says in `made_by` how.

    So a run can record it. What is decorated must have a name in a module. A record's last field is `made_by`.
    """
    signature = signature_of(function)
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
    spread = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]

    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)  # first: it says best what is wrong with an argument
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name in spread:
            bound.arguments |= bound.arguments.pop(name)
        if hasattr(made, "_replace"):
            return made._replace(made_by=Call(make, bound.arguments, defaults, tuple(made)[:-1]))
        made.made_by = Call(make, bound.arguments, defaults)
        return made

    return cast(Function, make)


def call_of(value: Any) -> Call | None:
    """The call that made a value, if it is known; None where parts of what it returned were replaced."""
    call = getattr(value, "made_by", None)
    known = isinstance(call, Call) and all(map(operator.is_, call.parts, value if call.parts else ()))
    return call if known else None


def agent_constructor(function: Function) -> Function:
    """Decorates an agent's constructor: it checks its keyword arguments' kinds, and computes with standard numbers.

    The agent says how it was made. See `checks.arguments` and `numerics.standard_numbers`.
    """
    from jaxrl.numerics import standard_numbers  # here, for it imports JAX

    standard = standard_numbers(function)

    @functools.wraps(function)
    def make(*args: Any, **given: Any) -> Any:
        checks.arguments(function.__name__, function, given)
        return standard(*args, **given)

    return cast(Function, recorded(make))


def preset(base: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorates a function whose body is a call of another constructor, to which it hands on what it does not know.

    The agent has the function's name, and so has the text of each error.

    Args:
      base: the other one, such as `dqn`. All its arguments are accepted.
    """

    def decorate(function: Function) -> Function:
        name = function.__name__

        def renaming(call: Callable) -> Callable:
            """The function, with errors that begin with this agent's name in place of the other one's."""

            @functools.wraps(call)
            def named(*args: Any, **kwargs: Any) -> Any:
                try:
                    return call(*args, **kwargs)
                except checks.JaxrlError as error:
                    owner, colon, rest = str(error).partition(": ")
                    if owner != base.__name__:
                        raise
                    raise type(error)(f"{name}{colon}{rest}") from None

            return named

        @functools.wraps(function)
        def make(*args: Any, **arguments: Any) -> Any:
            for argument in arguments:
                if argument not in known:  # Python would say it of the other constructor
                    raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}")
            agent = renaming(function)(*args, **arguments)
            return agent._replace(name=name, init=renaming(agent.init))

        make.__dict__["preset_of"] = base
        known = parameters(make)
        return cast(Function, recorded(make))

    return decorate


def lineage(constructor: Callable) -> list[Callable]:
    """A constructor, and what it is a preset of: `[rainbow, dqn]`."""
    base = getattr(constructor, "preset_of", None)
    return [constructor, *(lineage(base) if base else ())]


def parameters(constructor: Callable) -> dict[str, inspect.Parameter]:
    """All arguments of a constructor, with their defaults, and their annotations as what these stand for.

    A preset has those of its base, too, in the base's order. Of a `functools.partial` its own values are defaults. An
    annotation that cannot be looked up, as its name is only there for type checkers, stays text.
    """
    if isinstance(constructor, functools.partial):
        signature = signature_of(constructor.func)
        gone, given = signature.bind_partial(*constructor.args).arguments, constructor.keywords
        left = [p for p in signature.parameters.values() if p.name not in gone]
        return {p.name: p.replace(default=given.get(p.name, p.default)) for p in left}
    found: dict[str, inspect.Parameter] = {}
    for function in reversed(lineage(constructor)):
        names = getattr(inspect.unwrap(function), "__globals__", {})
        own = inspect.signature(function).parameters.values()
        own = [p for p in own if not (hasattr(function, "preset_of") and p.kind is p.VAR_KEYWORD)]
        found |= {p.name: p.replace(annotation=_resolved(p.annotation, names)) for p in own}
    return found


def signature_of(constructor: Callable) -> inspect.Signature:
    """The signature that a constructor has with all its `parameters`."""
    return inspect.Signature([*parameters(constructor).values()])


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    try:
        return eval(annotation, names) if isinstance(annotation, str) else annotation
    except Exception:
        return annotation
