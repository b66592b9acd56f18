"""A study of one's own: a baseline, a variant of it with some changes, and one claim on the two."""

import json
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sepablate import study
from sepablate.errors import UserError, choices
from sepablate.execution import variant_options
from sepablate.planning import earlier_runs, pipeline
from sepablate.runs import confounds, settings
from sepablate.runs.run import resolve
from sepablate.store import layout
from sepablate.store.params_file import read_params
from sepablate.study import TASK_SCORES, Claim, Study, Variant

OWN = "a question of one's own"
# Claims with their margins: a fraction, half a point or two points.
MARGINS = {"better": 0.005, "worse": 0.005, "equal": 0.02}
CLAIMS = tuple(MARGINS)
MOST_MARGIN = 0.2  # 20 points: a larger one was meant in points
LONGEST_LABEL = 40  # characters, of which a legend has the room
# Fields of a variant that a change may name, with their types.
FIELDS = {
    "weight_decay": 0.0,
    "decay_depthwise": True,
    "image_size": 0,
    "relative_width": 1.0,
    "recipe": "",
    "learning_rates": (0.0,),
    "same_parameters_as": study.XCEPTION,
}
# The fields of a config that a change is about, where they have another name.
FACTORS = {"relative_width": "model.width", "same_parameters_as": "model.width"}
FOLLOWS = "follows from the change"
ACTIVATIONS = {"relu": "ReLU", "elu": "ELU"}  # as they are written
MOST = {"accuracy": "accurate", "map_100": "precise", "map": "precise"}
# Folders of results, and reports of others: a study's own report has its name.
FOLDERS = {layout.RUNS, layout.MEASUREMENTS, layout.SETTINGS}
TAKEN = {"own", "costs", "controls", "detection", *FOLDERS, "study"}


@dataclass(frozen=True)
class Question:
    """Whether a changed network ends better than, worse than or equal to a baseline.

    Args:
        name: of the study, and of the changed variant.
        baseline: any declared variant.
        changes: of options of its network, or of fields of a variant.
        claim: one of CLAIMS.
        source: the paper and its section.
        margin: the smallest difference of interest, as a fraction; 0 for that of MARGINS.
        label: of the changed network, in tables and figures; "" for the changes in words.
        known_at: the scales at which both networks had runs before the claim was declared.
    """

    name: str
    baseline: Variant
    changes: Mapping[str, Any]
    claim: str = CLAIMS[0]
    source: str = OWN
    margin: float = 0.0
    label: str = ""
    known_at: tuple[str, ...] = ()

    @property
    def changed(self) -> str:
        """The changes in words."""
        return " and ".join(_words(option, value) for option, value in self.changes.items())

    @property
    def title(self) -> str:
        """The changed network by its label, or else in words."""
        if self.label:
            return f"{self.label}, against {self.baseline.label}"
        return f"{self.baseline.label} with {self.changed}"

    @property
    def sides(self) -> tuple[str, str, str]:
        """The comparison of the claim: "more accurate than"."""
        names = self.label or self.title, self.baseline.label
        left, right = reversed(names) if self.claim == "worse" else names
        word = MOST[TASK_SCORES[self.baseline.task]]
        return left, f"as {word} as" if self.claim == "equal" else f"more {word} than", right


def ask(
    name: str,
    baseline: str,
    changes: Sequence[str],
    scale: str,
    *,
    claim: str = CLAIMS[0],
    source: str = OWN,
    margin: str | None = None,
    label: str | None = None,
) -> tuple[Question, Study]:
    """Return a question and its study; an equal variant that is declared already is taken for it.

    Args:
        name: of the study.
        baseline: the name of a variant.
        changes: "option=value".
        scale: at which the study must resolve.
        claim: one of CLAIMS.
        source: the paper and its section.
        margin: a fraction; None for that of MARGINS.
        label: of the changed variant; None for the changes in words. A variant that is taken keeps
            its own.

    Raises UserError for anything unknown or taken, or if a change changes nothing.
    """
    _check_name(name)
    if claim not in CLAIMS:
        raise UserError(f"--claim {claim!r}: {choices(claim, CLAIMS)}")
    if not _is_one_line(source):
        raise UserError(f"--source {source!r}: choose one line without quotes or backslashes")
    before = study.variant(baseline)
    variant_options.check([before])
    source = source.strip().rstrip(".")
    parsed = _parse(before, changes)
    question = Question(name, before, parsed, claim, source, _margin(margin), _label(label))
    changed = _changed(question)
    if changed.name != name:
        question = replace(question, label="" if label is None else changed.label)
    try:
        differing = _differences(before, changed, scale)
    except UserError as error:
        raise _naming_change(error, changes) from None
    scales = read_params(layout.PARAMS)["scales"]
    known_at = earlier_runs.scales_with_runs((before.name, changed.name), list(scales))
    question = replace(question, known_at=tuple(known_at))
    return question, _declare(question, changed, differing)


def _naming_change(error: UserError, changes: Sequence[str]) -> UserError:
    """Return a network's refusal of an option's value with the change, and the choice it is like.

    Only the network knows its choices; it lists them as Python does.
    """
    option, _, rest = str(error).partition(" ")
    listed = re.fullmatch(r"must be one of \[(.*)\], not .*", rest)
    for change in changes:
        name, _, value = change.partition("=")
        if name == option:
            valid = [part.strip("'\"") for part in listed[1].split(", ")] if listed else []
            return UserError(f"--change {change!r}: {choices(value, valid) if valid else error}")
    return error


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        valid = "choose lower-case letters, digits and _, with a letter first"
        raise UserError(f"study {name!r}: {valid}")
    path = study.FOLDER / f"{name}.py"
    if path.exists():
        raise UserError(f"study {name!r}: {path} exists already: choose another name")
    if name in TAKEN | pipeline.stage_names():
        raise UserError(f"study {name!r}: a stage, a report or a folder of results has that name")


def _is_one_line(text: str) -> bool:
    """Return whether a text can stand in a Python string in double quotes, and is not empty."""
    return bool(text.strip()) and text.isprintable() and not set(text) & {'"', "\\"}


def _margin(text: str | None) -> float:
    """Return a margin as a fraction; 0 for none."""
    if text is None:
        return 0.0
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MOST_MARGIN:
        valid = f"margins are fractions, 0.005 is half a point: choose at most {MOST_MARGIN}"
        raise UserError(f"--margin {text!r}: {valid}")
    return number


def _label(text: str | None) -> str:
    """Return a label of a variant; "" for none."""
    if text is None:
        return ""
    if not _is_one_line(text) or len(text) > LONGEST_LABEL:
        valid = f"choose at most {LONGEST_LABEL} characters, without quotes or backslashes"
        raise UserError(f"--label {text!r}: {valid}")
    return text.strip()


def _parse(baseline: Variant, changes: Sequence[str]) -> dict[str, Any]:
    """Return the changes with values of the types that they need."""
    parsed: dict[str, Any] = {}
    types = {**FIELDS, **variant_options.options_of(baseline.model)}
    for change in changes:
        option, equals, text = change.partition("=")
        if not equals or option in parsed:
            raise UserError(f"--change {change!r}: choose OPTION=VALUE, each option once")
        if option not in types:
            raise UserError(f"--change {option!r}: {choices(option, types)}")
        parsed[option] = _value(change, text, types[option])
        one = baseline.but("changed", "Changed", **{option: parsed[option]})
        if variant_options.identity(one) == variant_options.identity(baseline):
            raise UserError(f"--change {change!r}: {baseline.name} has that already")
    return parsed


def _value(change: str, text: str, like: Any) -> Any:
    """Return a text as a value of the type of `like`; UserError if it is none."""
    if isinstance(like, Variant):
        return study.variant(text)
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise UserError(f"--change {change!r}: choose true or false")
        return text.lower() == "true"
    if isinstance(like, tuple):
        return tuple(_value(change, part, like[0]) for part in text.split(","))
    if not isinstance(like, int | float):
        if not text or not text.isprintable() or set(text) & {'"', "\\"}:
            raise UserError(f"--change {change!r}: choose a word")
        return text
    try:
        number = type(like)(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "a whole number" if isinstance(like, int) else "a number"
        raise UserError(f"--change {change!r}: choose {kind}")
    return number


def _changed(question: Question) -> Variant:
    """Return the changed variant; a declared one, by its own name, if one is the same."""
    words = question.changed
    label = question.label or words[0].upper() + words[1:]
    changed = question.baseline.but(question.name, label, **question.changes)
    declared = study.variants()
    for other in declared.values():
        if variant_options.identity(other) == variant_options.identity(changed):
            return other
    if changed.name in declared:
        owner = study.studies_with(changed.name)[0]
        raise UserError(
            f"study {changed.name!r}: {study.FOLDER}/{owner}.py declares another variant of that "
            "name: choose another"
        )
    for other in declared.values():
        if other.label == question.label:
            valid = f"variant {other.name} has it: choose another"
            raise UserError(f"--label {changed.label!r}: {valid}")
    return changed


def _differences(left: Variant, right: Variant, scale: str) -> list[str]:
    """Return the fields in which two variants differ at a scale, or at another that resolves."""
    differing: dict[str, None] = {}
    for name in dict.fromkeys([scale, *read_params(layout.PARAMS)["scales"]]):
        try:
            loaded, recipes = settings.load(name)
            ours, theirs = (
                resolve(each, name, loaded, recipes, loaded.seeds[0], "fp32").config
                for each in (left, right)
            )
        except UserError:  # such as images that are not fetched
            if name == scale:
                raise
            continue
        fields = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        differing |= dict.fromkeys(fields)
    return [field for field in differing if field not in confounds.FOLLOWS]


def _declare(question: Question, changed: Variant, differing: Sequence[str]) -> Study:
    """Return the study; what differs apart from its factors is a confound."""
    options = variant_options.options_of(question.baseline.model)
    factors = dict.fromkeys(
        f"model.{change}" if change in options else FACTORS.get(change, change)
        for change in question.changes
    )
    if missing := [factor for factor in factors if factor not in differing]:
        raise UserError(f"--change: {missing[0]} is then the same as {question.baseline.name}'s")
    reasons = {field: FOLLOWS for field in differing if field not in factors}
    if "learning_rates" in factors:
        reasons["learning_rate"] = "chosen from the grid, on validation images"
    left, how, right = question.sides
    names = [changed.name, question.baseline.name]
    if question.claim == "worse":
        names.reverse()
    equal = question.claim == "equal"
    section = question.source if question.source != OWN else "own question"
    claim = Claim(
        names[0],
        "=" if equal else ">",
        names[1],
        metric=TASK_SCORES[question.baseline.task],
        margin=question.margin or MARGINS[question.claim],
        section=section,
        statement=f"{left} ends {how} {right}",
    )
    return Study(
        title=question.title,
        source=question.source[0].upper() + question.source[1:],
        baseline=question.baseline,
        variants=(changed,),
        claims=(claim,),
        factors=tuple(factors),
        confounds=reasons,
    )


def _words(option: str, value: Any) -> str:
    name = option.replace("_", " ")
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    if isinstance(value, Variant):
        return f"{name} {value.label}"
    if isinstance(value, str):
        return f"{ACTIVATIONS.get(value, value)} as {name}"
    return f"{name} {', '.join(map(literal, value)) if isinstance(value, tuple) else text(value)}"


def text(value: object) -> str:
    """Return a number or a word as it is read."""
    return value if isinstance(value, str) else literal(value)


def literal(value: object) -> str:
    """Return a value in Python, with short exponents."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return re.sub(r"e([-+])0+", r"e\1", repr(value))
