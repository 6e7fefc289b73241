"""What ``dmts-ipi auto`` decides, as rules without side effects: steps, labels, training.

Every rule scales with two things that are measured first: the period of the fastest vibration
(``learning.fastest_motion``) and the time that the teacher takes for one evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS_FS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
INNER_STEPS_PER_PERIOD = 12.0
STS_STEPS_PER_PERIOD = 6.25
LONGEST_OUTER_PERIODS = 0.8
MOST_INNER_STEPS = 20
FRAMES_TIMES_ATOMS = 60_000
FEWEST_FRAMES, MOST_FRAMES = 120, 2000
FEWEST_EVALUATIONS = 2500  # of the teacher for labels: less does not make a student
LONGEST_MINUTES, SHORTEST_MINUTES = 60.0, 2.0
BURSTS, FEWEST_BURST_FRAMES = 3, 60


@dataclass(frozen=True)
class Plan:
    """The decisions. Times in fs but where the name says otherwise.

    Attributes:
        inner_fs: inner step.
        sts_fs: largest step that single time steps could take: the baseline of the speedup.
        n_inner: outer steps to try, in inner steps.
        label_step_fs: step of the dynamics that makes the labels.
        label_every_fs: time between labelled frames.
        label_ps: length of the labelling dynamics at each temperature, ps.
        temperatures_K: of the labelling dynamics, K.
        bursts, burst_frames, burst_step_fs: consecutive frames for the predicted heating.
        minutes: length of the training.
        reasons: one sentence for each decision.
    """

    inner_fs: float
    sts_fs: float
    n_inner: list[int]
    label_step_fs: float
    label_every_fs: float
    label_ps: float
    temperatures_K: list[float]
    bursts: int
    burst_frames: int
    burst_step_fs: float
    minutes: float
    reasons: list[str]


def step_below(limit_fs: float) -> float:
    """The largest of ``STEPS_FS`` that does not exceed a limit by more than a tenth."""
    return max((s for s in STEPS_FS if s <= 1.1 * limit_fs), default=STEPS_FS[0])


def make_plan(
    period_fs: float,
    teacher_s: float,
    n_atoms: int,
    time_ps: float,
    temperature_K: float,
    periodic: bool,
    budget: float,
) -> Plan:
    """Steps, labels and training for a run.

    Args:
        period_fs: of the fastest vibration, with the masses of the run.
        teacher_s: time of one evaluation of the teacher, s.
        n_atoms: of the system.
        time_ps: length of the run.
        temperature_K: of the run.
        periodic: whether the system is condensed matter.
        budget: part of the time of the run by single time steps that labels may take, and
            training as much again.
    """
    inner = step_below(period_fs / INNER_STEPS_PER_PERIOD)
    sts = step_below(period_fs / STS_STEPS_PER_PERIOD)
    longest = min(int(LONGEST_OUTER_PERIODS * period_fs / inner), MOST_INNER_STEPS)
    n_inner = list(range(2, max(longest, 2) + 1))
    sts_evaluations = 1000 * time_ps / sts
    evaluations = max(budget * sts_evaluations, FEWEST_EVALUATIONS)
    burst_step = max(inner, 1.0)
    burst_frames = max(FEWEST_BURST_FRAMES, round(3 * longest * inner / burst_step))
    factors = (1.0, 1.2) if periodic else (1.0, 1.3, 1.65)
    label_step = min(inner, 5.0)
    wanted = min(max(FRAMES_TIMES_ATOMS / n_atoms, FEWEST_FRAMES), MOST_FRAMES)
    left = max(evaluations - BURSTS * 2 * burst_frames, 0.6 * FEWEST_EVALUATIONS)
    between = min(max(left / wanted, 0.7 * period_fs / label_step), 4 * period_fs / label_step)
    every = max(1, round(between)) * label_step
    frames = max(min(wanted, left * label_step / every), len(factors))
    label_ps = frames * every / len(factors) / 1000
    run_s = sts_evaluations * teacher_s
    minutes = min(max(budget * run_s / 60, SHORTEST_MINUTES), LONGEST_MINUTES)
    temperatures = [round(temperature_K * f, 1) for f in factors]
    kelvin = ", ".join(f"{t:g}" for t in temperatures)
    reasons = [
        f"inner step {inner:g} fs: the fastest vibration has a period of {period_fs:.1f} fs, and "
        f"{INNER_STEPS_PER_PERIOD:g} steps resolve it",
        f"single time steps could take {sts:g} fs ({STS_STEPS_PER_PERIOD:g} steps a period): "
        "that is the baseline of the speedup",
        f"outer steps of {2 * inner:g} to {n_inner[-1] * inner:g} fs are tried: at most "
        f"{LONGEST_OUTER_PERIODS:g} of the period, or {MOST_INNER_STEPS} inner steps",
        f"about {round(frames)} labelled frames at {kelvin} K, {every:g} fs apart, and {BURSTS} "
        f"bursts of {burst_frames} frames: {round(frames * every / label_step)} evaluations of "
        f"{1000 * teacher_s:.3g} ms, where the run by single steps takes {round(sts_evaluations)}",
        f"{minutes:.3g} minutes of training: {100 * budget:g} % of the run by single time steps, "
        f"between {SHORTEST_MINUTES:g} and {LONGEST_MINUTES:g}",
    ]
    return Plan(
        inner_fs=inner,
        sts_fs=sts,
        n_inner=n_inner,
        label_step_fs=label_step,
        label_every_fs=every,
        label_ps=label_ps,
        temperatures_K=temperatures,
        bursts=BURSTS,
        burst_frames=burst_frames,
        burst_step_fs=burst_step,
        minutes=minutes,
        reasons=reasons,
    )
