"""The file of a study as Python that `ruff format` leaves as it is."""

import dataclasses
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from sepablate import study
from sepablate.errors import UserError
from sepablate.planning import earlier_runs
from sepablate.planning.new_study import OWN, Question, literal
from sepablate.study import Claim, Study, Variant

WIDTH = 100
PUBLIC = {
    "XCEPTION": study.XCEPTION,
    "INCEPTION_V3": study.INCEPTION_V3,
    "POINTWISE_FIRST": study.POINTWISE_FIRST,
}
# Code is a string, a string literal to split where it is long, or brackets around code.
Code = str | tuple[str, str] | tuple[str, list[Any], str]


def write(question: Question, declared: Study) -> str:
    """Return the content of `experiments/<study>.py`.

    Raises UserError if the source does not fit the first line.
    """
    constants: dict[str, Variant] = {}
    definitions: list[str] = []
    for variant in declared.all_variants:
        _define(variant, constants, definitions)
    names = {variant.name: constant for constant, variant in constants.items()}
    (claim,) = declared.claims
    fields: list[Code] = [
        ("title=", declared.title),
        ("source=", declared.source),
        f"baseline={names[declared.baseline.name]}",
        f"variants=({names[declared.variants[0].name]},)",
        ("claims=(", [_claim(claim)], ")"),  # never fits one line
        _tuple("factors=", declared.factors),
    ]
    if declared.confounds:
        pairs = [f"{literal(key)}: {literal(why)}" for key, why in declared.confounds.items()]
        fields.append(("confounds={", list(pairs), "}"))
    body = "\n".join(
        [
            *definitions,
            *[""] * bool(definitions),
            _layout(("STUDY = Study(", fields, ")"), 0, explode=True) + "\n",
        ]
    )
    public = sorted(constant for constant in PUBLIC if re.search(rf"\b{constant}\b", body))
    imported = [*public, "Claim", "Study", *["Variant"] * ("= Variant(" in body)]
    head = f"from sepablate.study import {', '.join(imported)}\n"
    return "\n".join([_docstring(question, declared), head, body])


def _docstring(question: Question, declared: Study) -> str:
    source = question.source[0].upper() + question.source[1:]
    titles = (question.title, f"{question.baseline.label}, changed")
    fitting = [f'"""{title}. {source}.' for title in titles if len(title + source) <= WIDTH - 6]
    if not fitting:
        raise UserError(f"--source {question.source!r}: choose at most {WIDTH - 40} characters")
    left, how, right = question.sides
    declared_when = earlier_runs.words(question.known_at)
    paper = f"None: the claim is a guess of one's own, {declared_when}."
    if question.source != OWN:
        paper = f"The claim is that of {question.source}."
        paper += f" It is {declared_when}." if question.known_at else ""
    fields = " and ".join(declared.factors)
    points = {
        "Question": f"Does {left} end {how} {right}?",
        "Paper": paper,
        "Deviates": f"The two networks differ in {fields}, and in what follows from that.",
    }
    wrapped = [
        textwrap.fill(
            body,
            WIDTH,
            initial_indent=f"{head:11}",
            subsequent_indent=" " * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for head, body in points.items()
    ]
    return "\n".join([fitting[0], "", *wrapped, '"""\n'])


def _claim(claim: Claim) -> Code:
    arguments: list[Code] = [literal(claim.left), literal(claim.comparison), literal(claim.right)]
    arguments += [f"metric={literal(claim.metric)}", f"margin={literal(claim.margin)}"]
    arguments += [("section=", claim.section), ("statement=", claim.statement)]
    return "Claim(", arguments, ")"


def _define(variant: Variant, constants: dict[str, Variant], lines: list[str]) -> str:
    """Return the constant of a variant; add it, and the lines that define it, if it is new."""
    for constant, known in {**constants, **PUBLIC}.items():
        if known == variant:
            constants[constant] = known
            return constant
    if variant.same_parameters_as:
        _define(variant.same_parameters_as, constants, lines)
    bases = [*constants.items(), *PUBLIC.items()]
    derived = [
        (constant, changes)
        for constant, base in bases
        if (changes := _changes(base, variant)) is not None
    ]
    constant = re.sub(r"\W", "_", variant.name).upper()
    constant = f"V{constant}" if constant[0].isdigit() else constant
    names: list[Code] = [literal(variant.name), ("", variant.label)]
    if derived:
        base_name, changes = min(derived, key=lambda each: len(each[1]))
        if base_name in PUBLIC:
            constants[base_name] = PUBLIC[base_name]
        head = f"{base_name}.but("
    else:
        head, changes = "Variant(", _fields(variant)
    arguments = [*names, *(_argument(*change, constants) for change in changes.items())]
    lines.append(_layout((f"{constant} = {head}", arguments, ")"), 0))
    constants[constant] = variant
    return constant


def _changes(base: Variant, variant: Variant) -> dict[str, Any] | None:
    """Return what `base.but` needs to give the variant; None if it cannot."""
    fields = {
        field.name: getattr(variant, field.name)
        for field in dataclasses.fields(variant)
        if field.name not in ("name", "label", "options")
        and getattr(variant, field.name) != getattr(base, field.name)
    }
    options = {
        option: value
        for option, value in variant.options.items()
        if option not in base.options or base.options[option] != value
    }
    changes = {**options, **fields}
    made = base.but(variant.name, variant.label, **changes)
    return changes if made == variant and base.model == variant.model else None


def _fields(variant: Variant) -> dict[str, Any]:
    """Return the fields of a variant, after its name and label, that have no default."""
    first: dict[str, Any] = {"model": variant.model, "weight_decay": variant.weight_decay}
    plain = Variant(variant.name, variant.label, **first)
    return first | {
        field.name: getattr(variant, field.name)
        for field in dataclasses.fields(variant)
        if getattr(variant, field.name) != getattr(plain, field.name)
    }


def _argument(name: str, value: Any, constants: dict[str, Variant]) -> Code:
    if isinstance(value, Variant):
        return f"{name}={next(key for key, known in constants.items() if known == value)}"
    if isinstance(value, tuple):
        return _tuple(f"{name}=", value)
    if name == "options":
        pairs = [f"{literal(key)}: {literal(each)}" for key, each in value.items()]
        return f"{name}={{", list(pairs), "}"
    return f"{name}={literal(value)}"


def _tuple(head: str, values: Iterable[Any]) -> Code:
    items = [literal(value) for value in values]
    return f"{head}({items[0]},)" if len(items) == 1 else (f"{head}(", list(items), ")")


def _flat(code: Code) -> str:
    if isinstance(code, str):
        return code
    if len(code) == 2:
        return code[0] + literal(code[1])
    return f"{code[0]}{', '.join(map(_flat, code[1]))}{code[2]}"


def _layout(code: Code, indent: int, explode: bool = False) -> str:
    """Return code after an indent: on one line, with its comma, if it fits, else on several."""
    flat = _flat(code)
    if isinstance(code, str) or (not explode and indent + len(flat) < WIDTH):
        return flat
    if len(code) == 2:
        room = WIDTH - indent - len(code[0]) - 4
        pieces = textwrap.wrap(code[1], room, break_long_words=False, break_on_hyphens=False)
        ends = [" "] * (len(pieces) - 1) + [""]
        parts = [literal(piece + end) for piece, end in zip(pieces, ends, strict=True)]
        return code[0] + f"\n{' ' * indent}".join(parts)
    deeper = " " * (indent + 4)
    items = [f"{deeper}{_layout(each, indent + 4)},\n" for each in code[1]]
    return f"{code[0]}\n{''.join(items)}{' ' * indent}{code[2]}"
