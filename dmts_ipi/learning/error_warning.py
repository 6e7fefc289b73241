"""When the error of a student is too large to run with it: one line, with the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Above this part of the root mean square force no student is of use: the pair force that training
# starts from, by itself, reaches 0.3.
LARGEST_PART = 0.3
# Held-out frames that are so much worse than those of the training are unlike them.
FAR_ABOVE_TRAINING = 3.0
ABOVE_TRAINING = 1.5  # from here on more labels help more than more steps
LEAST_RMSE_EV_PER_A = 0.02  # below it the ratio to the training frames says nothing
ALL = "all atoms"


def error_warning(
    errors: Mapping[str, tuple[float, float]], training_rmse: float | None = None
) -> str:
    """What is wrong with an error, and what to do; empty where it is in order.

    Args:
        errors: RMSE of the force components and their root mean square in the labels, eV/A, of
            ``ALL`` and of each element.
        training_rmse: the same RMSE on frames of the training, eV/A.
    """
    more = (
        "label more frames like those of the run (single frames at its temperature), train longer"
    )
    relative = {k: rmse / rms for k, (rmse, rms) in errors.items() if rms > 0}
    worst = max(relative, key=lambda k: relative[k], default=ALL)
    if relative.get(worst, 0.0) > LARGEST_PART:
        which = ALL if relative[ALL] > LARGEST_PART else worst
        line = (
            f"force RMSE {1e3 * errors[which][0]:.0f} meV/A of {which} is "
            f"{100 * relative[which]:.0f} % of the root mean square force (limit: "
            f"{100 * LARGEST_PART:.0f} %)"
        )
        if worst != which:
            line += f", of {worst} {100 * relative[worst]:.0f} %"
        return f"{line}; do not run with this model: {more}"
    rmse = errors[ALL][0]
    if (
        training_rmse is not None
        and rmse > LEAST_RMSE_EV_PER_A
        and rmse > FAR_ABOVE_TRAINING * training_rmse
    ):
        return (
            f"held-out force RMSE {1e3 * rmse:.0f} meV/A is {rmse / training_rmse:.1f} times that "
            f"of training frames (above {FAR_ABOVE_TRAINING:g}): the labels are too few or too "
            f"much alike; {more}"
        )
    return ""


def more_labels_help(held_out_rmse: float, training_rmse: float) -> str:
    """A sentence where held-out frames are much worse than those of the training; else empty.

    Args:
        held_out_rmse, training_rmse: of the force components, eV/A.
    """
    if held_out_rmse < LEAST_RMSE_EV_PER_A or held_out_rmse < ABOVE_TRAINING * training_rmse:
        return ""
    return (
        f"held-out force RMSE {1e3 * held_out_rmse:.0f} meV/A is "
        f"{held_out_rmse / training_rmse:.1f} times that of training frames: more labels would "
        "help more than a longer training"
    )


def warning_of_figures(figures: Mapping[str, Any]) -> str:
    """``error_warning`` of what ``learning.evaluate.Evaluation.as_dict`` returns."""
    errors = {ALL: (figures["force_rmse_eV_per_A"], figures["force_reference_rms_eV_per_A"])}
    for symbol, e in figures["by_element"].items():
        errors[symbol] = e["rmse_eV_per_A"], e["reference_rms_eV_per_A"]
    return error_warning(errors)
