"""What a study is at one scale: its images, how wide its networks are, how equal their sizes.

The studies declare what is true at every scale; these lines follow from the resolved configs.
"""

from collections.abc import Iterable, Mapping

from sepablate.analysis.formatting import percent
from sepablate.analysis.load_runs import Config
from sepablate.paper import xception as paper
from sepablate.store.layout import CONSTANT_SCORES
from sepablate.store.run_key import NOT_IN_KEY
from sepablate.study import Study, Variant

COUNTS = ("parameters", "mult_adds")  # fields whose differences are given in percent


def images(config: Config) -> str:
    """Return the images of a run as its network gets them."""
    size, channels = config["image_size"], config["model.in_channels"]
    return (
        f"images of `{config['dataset']}` in {config['model.classes']} classes, given as "
        f"{size} x {size} x {channels}"
    )


def point(declared: Study, configs: Mapping[str, Config]) -> str:
    """Return the point of a study's section that says what it is at this scale."""
    baseline = declared.baseline
    first = configs[baseline.name]
    width = first["model.width"]
    wide = f"{width:g} times" if width != 1 else "just"
    sentences = [
        f"{first['images']:,} {images(first)}.",
        f"{baseline.label} is {wide} as wide as published and has {first['parameters']:,} "
        f"parameters; {first['steps']:,} gradient steps (epochs: {first['epochs']:g}).",
    ]
    matched = [variant for variant in declared.variants if variant.same_parameters_as]
    relations = [_relation(declared, variant, "parameters", configs) for variant in matched]
    if any(relations):
        sentences.append(f"Parameters: {'; '.join(filter(None, relations))}.")
    known = first.get(CONSTANT_SCORES)
    if known is not None:
        sentences.append(
            "Constant scores, each class's share of the training labels, already reach "
            f"{percent(known['test'])} % on the test images and "
            f"{percent(known['validation'])} % on the validation images."
        )
    return f"- **At this scale.** {' '.join(sentences)}\n"


def confounds(declared: Study, configs: Mapping[str, Config]) -> str:
    """Return the declared confounds in which the variants differ at this scale, with reasons."""
    lines = []
    for field, reason in declared.confounds.items():
        values = {str(configs[variant.name].get(field)) for variant in declared.all_variants}
        if len(values) > 1:
            relations = [_relation(declared, each, field, configs) for each in declared.variants]
            related = f" ({'; '.join(filter(None, relations))})" if any(relations) else ""
            lines.append(f"- {field}{related}: {reason}\n")
    return f"Confounds:\n\n{''.join(lines)}" if lines else ""


def searches(declared: Study, configs: Mapping[str, Config], others: Iterable[Variant] = ()) -> str:
    """Return the variants whose own search chose the learning rate that their recipe has.

    Such a variant is trained as without a search, so its numbers are those of the variant without
    one, if that is declared. Nothing is said of another rate, which the settings show, or where no
    config shows the recipe's.

    Args:
        declared: the study.
        configs: of all variants of the report, by name.
        others: the variants of all studies, among which the one without a search may be.
    """
    lines = []
    for variant in declared.all_variants:
        config = configs[variant.name]
        rates = {
            other["learning_rate"]
            for other in configs.values()
            if other["recipe"] == config["recipe"] and not other.get("learning_rates")
        }
        if not variant.learning_rates or rates != {config["learning_rate"]}:
            continue
        twins = [
            other.label
            for other in others
            if other == variant.but(other.name, other.label, learning_rates=())
            and _trained_alike(configs.get(other.name, config), config)
        ]
        like = f"*{twins[0]}*" if twins else "without a search"
        same = ", so that the same code gives both the same numbers, to the last digit"
        lines.append(
            f"The search for *{variant.label}* chose the learning rate that the recipe has, "
            f"{config['learning_rate']:g}: it is trained exactly as {like}{same * bool(twins)}.\n"
        )
    return "".join(lines)


def _trained_alike(one: Config, other: Config) -> bool:
    """Return whether two configs agree in all that decides numbers."""
    apart = {key for key in {*one, *other} if one.get(key) != other.get(key)}
    return apart <= {"variant", *NOT_IN_KEY}


def reading_of_decays(config: Config) -> str:
    """Return how the decays of the paper's JFT recipe are read; "" for another recipe."""
    if config["recipe"] != "jft":
        return ""
    literal = paper.JFT_STEPS * paper.JFT_BATCH // paper.JFT_SAMPLES_A_DECAY
    end = paper.JFT_RATE * paper.JFT_DECAY**literal
    return (
        f"The paper multiplies the rate by {paper.JFT_DECAY:g} every {paper.JFT_SAMPLES_A_DECAY:,} "
        f"samples, and trains for {paper.JFT_STEPS:,} steps. With {paper.JFT_BATCH} images a step "
        f"that would be {literal} decays, and a rate of {end:.0e} at the end. So samples are read "
        f"as steps: {paper.JFT_STEPS // paper.JFT_SAMPLES_A_DECAY} decays in the paper's training, "
        f"{config['decays']} in a run here.\n"
    )


def _relation(declared: Study, variant: Variant, field: str, configs: Mapping[str, Config]) -> str:
    """Return by how much a variant's count differs from its reference's; "" if it is no count.

    The reference is the variant whose parameters it is to match, or the baseline.
    """
    reference = variant.same_parameters_as or declared.baseline
    if field not in COUNTS or reference.name not in configs:
        return ""
    ours, theirs = configs[variant.name][field], configs[reference.name][field]
    if ours == theirs:
        return f"{variant.label}: as many as {reference.label}"
    more = "more" if ours > theirs else "fewer"
    difference = abs(ours / theirs - 1)
    return f"{variant.label}: {percent(difference)} % {more} than {reference.label}"
