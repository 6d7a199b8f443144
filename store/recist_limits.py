"""What a course after RECIST cannot know, as plain sentences."""

from collections.abc import Iterator, Sequence

from store.recist_terms import Measurement, NotChosen, Rules, Target

_BONE = "bone"
"""As a lesion type; finding sites are codes of single bones, far too many to list."""


def describe_limits(
    rules: Rules,
    *,
    targets: Sequence[Target],
    not_chosen: Sequence[NotChosen],
    baseline: Sequence[Measurement],
    studies_before: int,
    studies_after: int,
    unmeasured_nodes: int,
) -> tuple[str, ...]:
    """The sentences that hold for this course, those about its own data first.

    Args:
        rules: the settings it was assessed with.
        targets: its targets.
        not_chosen: the other lesions of the baseline.
        baseline: the measurements of the baseline study.
        studies_before: how many studies lie before the baseline.
        studies_after: how many lie after it.
        unmeasured_nodes: lymph nodes after the baseline that may be new, but have no short axis.
    """
    own = _about_baseline(rules, targets, not_chosen, baseline)
    return (*own, *_about_studies(studies_before, studies_after, unmeasured_nodes), *_about_every_course(rules))


def _about_baseline(
    rules: Rules, targets: Sequence[Target], not_chosen: Sequence[NotChosen], baseline: Sequence[Measurement]
) -> Iterator[str]:
    if not baseline:
        yield "Nothing is marked in the baseline study: there are no targets, and every later lesion looks new."
    elif not targets:
        yield "No lesion of the baseline is measurable: its disease is not assessed, only new lesions are."
    left_out = sum(lesion.reason != "normal_node" for lesion in not_chosen)
    known = f" ({_count(left_out, 'lesion')} of the baseline)" if left_out else ""
    yield (
        f"Non-target disease{known} is not assessed: as long as it is there RECIST turns a CR into a PR, "
        "and its unequivocal growth would be PD."
    )
    unknown = sum(target.organ is None and not target.is_node for target in targets)
    if unknown:
        yield (
            f"The organ of {_count(unknown, 'target')} is unknown; lesions of unknown organ share one organ "
            f"and its {_count(rules.max_per_organ, 'place')}."
        )
    in_bone = sum(target.organ == _BONE for target in targets)
    if in_bone:
        yield (
            f"Targets in bone: {in_bone}. RECIST measures the soft tissue of a lytic lesion only, and "
            "no blastic one; which of them this is, a mark does not say."
        )
    unsliced = sum(lesion.slice_interval_mm is None for lesion in baseline)
    if unsliced:
        yield f"The slice interval of {_count(unsliced, 'lesion')} is unknown; thick slices were not held against it."


def _about_studies(before: int, after: int, unmeasured_nodes: int) -> Iterator[str]:
    if before:
        yield f"Studies before the baseline are not assessed: {before}."
    if not after:
        yield "There is no study after the baseline, so there is no response yet."
    if unmeasured_nodes:
        yield f"Lymph nodes without a short axis, for which reason they were not counted as new: {unmeasured_nodes}."


def _about_every_course(rules: Rules) -> Iterator[str]:
    if rules.absent == "unknown":
        yield (
            "A lesion that is not marked may still be there: marks in a PACS are not exhaustive. "
            "A target without a mark leaves a study not evaluable."
        )
    else:
        yield "A target that is not marked was taken as gone, as the settings say; nobody may have looked for it."
    if rules.new_lesions == "progress":
        yield "A lesion that is marked for the first time counts as new; it may have been there without a mark."
    else:
        yield "New lesions are listed and do not count; after RECIST they are progression."
    yield "Which marks are one lesion comes from matching, not from a reader."
    yield "Whether a mark is a tumour at all is taken from whoever drew it."
    yield (
        "Lymph nodes are told by the codes of their marks; a node without such a code was measured by its "
        "longest diameter."
    )
    yield "Responses are unconfirmed: no second study is asked for, and no least duration of SD."
    yield (
        "The clinical context is unknown: start and kind of treatment, surgery or radiation of a target, symptoms, "
        "tumour markers, other imaging."
    )


def _count(number: int, one: str) -> str:
    return f"{number} {one}{'s' * (number != 1)}"
