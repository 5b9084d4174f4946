"""The questions that a campaign answers: on which tasks, by which variants, what is expected.

This is the table to edit. A variant is a name for changes of a preset; its rows are found by
preset, variant and seed. Two questions that name the same variant of the same preset share its
runs. Nothing here is a result.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measures import (
    Expectation,
    best_lead,
    farthest_rate,
    gap,
    highest,
    lead,
    mean,
    runs_on_a_bound,
    share,
)
from benchmarks.modalities import OF_SENSES
from benchmarks.question import Question, Task
from benchmarks.variants import (
    FLAT,
    HIERARCHY,
    META,
    REINFORCE,
    empowerment,
    icm,
    rates,
    repeated,
)

CURIOUS = FLAT | icm(0.2)
SEA = {"flat": FLAT, "icm": CURIOUS}
DEEPER = {"env.id": "DeepSea-v0?size=12", "train.env_steps": 20000}

REPEAT = 5
LEVELS = {
    "flat": FLAT,
    f"flat-repeat{REPEAT}": FLAT | repeated(REPEAT),
    "hierarchy": FLAT | HIERARCHY | {"policy.goal_every": REPEAT},
}

PITS_ICM = FLAT | icm(0.2)
POWERS = {f"icm-emp{weight:g}": PITS_ICM | empowerment(weight) for weight in (0.03, 0.1, 0.3)}
# So few steps that curiosity alone just arrives, if at all.
SOON = {"train.env_steps": 10000}

# Half the preset's steps: slow rates must not have the time to arrive after all. The default's meta
# step would hardly cross a factor of ten in that time; this one is ten times as large.
SHORT = {"train.env_steps": 16000}
SEEKING = META | {"meta.step": 0.05, "meta.every": 2, "meta.warmup": 0}
RATES = {
    "flat": FLAT,
    "d10": FLAT | rates(0.1),
    "d10-meta": FLAT | rates(0.1) | SEEKING,
}

# PinPad by the agent that repeats its actions: there slow rates have learned nothing when good ones
# are done. A trace of a hundred moves, because ten are too few for a world model to be judged by.
BRIEF = {
    "env.action_repeat": REPEAT,
    "collect.steps": 1600,
    "train.env_steps": 5000,
    "train.eval_every": 1000,
    "train.updates_per_env_step": 0.5,
}
PATIENT = SEEKING | {"meta.trace": 0.99}
PAD_RATES = {
    "flat": FLAT,
    "meta": FLAT | PATIENT,
    "x10": FLAT | rates(10),
    "x10-meta": FLAT | rates(10) | PATIENT,
    "d10": FLAT | rates(0.1),
    "d10-meta": FLAT | rates(0.1) | PATIENT,
}

# On Pits, because there curiosity matters, empowerment is at home and a run takes minutes.
ABLATION = {
    "flat-reinforce": FLAT | REINFORCE,
    "flat": FLAT,
    "icm": PITS_ICM,
    "empowerment": FLAT | empowerment(0.1),
    "hierarchy": FLAT | HIERARCHY,
    "meta": FLAT | META,
    "all": HIERARCHY | META | icm(0.2) | empowerment(0.03),
    "all-curious-worker": HIERARCHY
    | META
    | icm(0.2)
    | empowerment(0.03)
    | {"policy.worker.icm": 0.2},
}

EXPLORATION = Question(
    name="exploration",
    text="Does curiosity find what an agent without it does not?",
    tasks=(
        Task(preset="deep_sea", arms=SEA),
        Task(
            preset="deep_sea",
            mark="size12",
            changes=DEEPER,
            arms=SEA,
        ),
    ),
    expectations=(
        Expectation(
            text="deep_sea: mean of the curious agents",
            measure=mean("deep_sea-icm"),
            at_least=0.8,
        ),
        Expectation(
            text="deep_sea-size12: mean of the curious agents",
            measure=mean("deep_sea-size12-icm"),
            at_least=0.8,
        ),
        Expectation(
            text="deep_sea-size12: best of the flat agents, which fail",
            measure=highest("deep_sea-size12-flat"),
            at_most=0.1,
        ),
    ),
    analysis=(
        "Size 10 does not separate the two for certain: 1,000 episodes of random play find a "
        "treasure of one in 1,024 with a probability of 62 %, and an agent that has found it once "
        "may learn it: flat agents did with two seeds of three. At size 15 the 1,730 episodes of a "
        "run find it with one of 5 %.",
        "What a world model is given for free decides here. With one free nat, as in the paper, it "
        "never has to learn which action does what, for the outcome of a move is worth 0.69 nats: "
        "curiosity then found the treasure of size 10 once in 1,090 episodes (seed 1) and lost it "
        "again. With the default 0.1, and reconstruction weighted 10, the same agent has solved it "
        "after 6,000 steps.",
    ),
)

LEVELED = Question(
    name="hierarchy",
    text="Do goals that last several steps help, and more than repeating each action does?",
    tasks=(
        Task(preset="pin_pad", arms=LEVELS),
        Task(
            preset="cartpole",
            mark="short",
            changes=SHORT,
            arms={"flat": FLAT, "hierarchy": FLAT | HIERARCHY},
        ),
    ),
    expectations=(
        Expectation(
            text="pin_pad: lead of the hierarchy over the flat agent",
            measure=lead("pin_pad-hierarchy", "pin_pad-flat"),
            at_least=50.0,
        ),
        Expectation(
            text="pin_pad: lead of the hierarchy over repeated actions",
            measure=lead("pin_pad-hierarchy", f"pin_pad-flat-repeat{REPEAT}"),
            at_least=0.0,
        ),
        Expectation(
            text="cartpole, where it should not help: distance of the two means",
            measure=gap("cartpole-short-hierarchy", "cartpole-short-flat"),
            at_most=25.0,
        ),
    ),
    analysis=(
        "The flat agent stumbles over a sequence about once in three episodes and learns nothing "
        "from it in two runs of three; in the third it does as well as the hierarchy. The agent "
        "that repeats each action learns in every run, and sooner, but its five steps are too "
        "coarse to turn where it should.",
        "What helps is more likely that a goal lasts than that it is chosen: at the end the "
        "manager's entropy is 99 % of the largest possible, so that goals are drawn nearly at "
        "random, while the worker, which is paid for the task as well, has learned to do it. "
        "Nachum et al. 2019 (arXiv 1909.10618) too find exploration to be most of what hierarchies "
        "give.",
        "On KeyChain no agent, flat or with goals, has learned the way in single runs of 20,000 "
        "to 40,000 steps.",
    ),
)

POWER = Question(
    name="empowerment",
    text="Does empowerment keep an agent out of places that nothing leads out of?",
    tasks=(Task(preset="pits", mark="soon", changes=SOON, arms={"icm": PITS_ICM, **POWERS}),),
    expectations=(
        Expectation(
            text="pits-soon: lead of the best weight over curiosity alone",
            measure=best_lead([f"pits-soon-{arm}" for arm in POWERS], "pits-soon-icm"),
            at_least=0.1,
        ),
    ),
    analysis=(
        "It does not help here, and the more it weighs the more it hurts: curiosity alone arrives "
        "with two seeds of three, beside a weight of 0.03 with two, of 0.1 with one, of 0.3 with "
        "none.",
        "Where the agent has been, the estimate is sound: it tells pits (0.0 to 0.3 nats, where "
        "the truth is 0) from most of the street (1.0 to 1.7, two actions of five choices each). "
        "Where it has not been, the estimate is about 0 as well, because it is a lower bound "
        "(Mohamed and Rezende 2015) whose decoder cannot yet tell which actions led there. So "
        "unknown places look like pits, and empowerment draws the agent back to where it began: "
        "the maps of seed 0 with a weight of 0.3 show 59 of 60 steps in the first cell. It works "
        "against exploration, which this task needs first. Alone it found nothing in a single run "
        "of 16,000 steps, and on 9 x 9 cells neither curiosity nor both did in 20,000.",
    ),
)


def recovery(task: str, arm: str) -> tuple[Expectation, ...]:
    """What wrong rates must cost, and rates that tune themselves bring back."""
    fixed, tuning, tuned = f"{task}-{arm}", f"{task}-{arm}-meta", f"{task}-flat"
    return (
        Expectation(
            text=f"{task}, {arm}: share of the tuned return, rates fixed",
            measure=share(fixed, tuned, task),
            at_most=0.5,
        ),
        Expectation(
            text=f"{task}, {arm}: share of the tuned return, rates tuning themselves",
            measure=share(tuning, tuned, task),
            at_least=0.8,
        ),
        Expectation(
            text=f"{task}, {arm}: final meta/lr farthest from the tuned rate, as a factor",
            measure=farthest_rate(tuning),
            at_most=3.0,
        ),
        Expectation(
            text=f"{task}, {arm}: runs whose final meta/lr is on a bound",
            measure=runs_on_a_bound(tuning),
            at_most=0.0,
        ),
    )


SELF_TUNING = Question(
    name="meta",
    text="Do learning rates that are ten times too high or too low find their way back?",
    tasks=(
        Task(preset="pin_pad", mark="brief", changes=BRIEF, arms=PAD_RATES),
        Task(preset="cartpole", mark="short", changes=SHORT, arms=RATES),
    ),
    expectations=(
        *recovery("pin_pad-brief", "d10"),
        *recovery("pin_pad-brief", "x10"),
        Expectation(
            text="pin_pad-brief: share of the tuned return that tuning good rates on keeps",
            measure=share("pin_pad-brief-meta", "pin_pad-brief-flat", "pin_pad-brief"),
            at_least=0.9,
        ),
        *recovery("cartpole-short", "d10"),
    ),
    analysis=(
        "Rates ten times too high do this agent little harm: on PinPad it returns about as much "
        "with them as with the tuned ones, so that there is nothing to recover from. Single runs "
        "that are not among the rows say the same: with all three rates at ten times the preset's "
        "and more, up to the bound of 0.01, CartPole reached 500, Pendulum -171, MiniGrid-Empty "
        "0.955 and DeepSea 10 its treasure, mostly in fewer steps. A step of LaProp has the size "
        "of its rate whatever the gradient, and weights in front of a normalisation grow until "
        "such steps are small for them. Nor is it the decay that mends it: with rates that stay "
        "ten times too high to the end, in single runs, CartPole was at 500 after 10,000 steps and "
        "PinPad at 120 after 4,000. REINFORCE on CartPole, without PPO's clipping and without "
        "decay, got 500 at 0.001 and at 0.01, with three seeds, 284, 500 and 222.",
        "How far ahead a rate is judged decides. On CartPole, with a trace of ten meta steps, the "
        "rates of the world model and of the critics sink far below the tuned ones, the world "
        "model's by a factor of 170, without harm to the task within these runs. The likely reason "
        "is the bias of short horizons (Wu et al. 2018): they are judged by a batch a few steps "
        "later, where a small rate pays because it averages noise out. On PinPad the same trace "
        "left the agent at 5 of 125 in a single run, one of 33 meta steps at 77; with one of a "
        "hundred, as in the rows, no rate sinks: the world model's ends above the tuned one, the "
        "critic's on its bound.",
    ),
)

PARTS = Question(
    name="ablation",
    text="What does each part add to a flat agent, and what do all of them together?",
    tasks=(Task(preset="pits", mark="soon", changes=SOON, arms=ABLATION),),
    expectations=(
        Expectation(
            text="pits-soon: lead of everything together over the flat agent",
            measure=lead("pits-soon-all", "pits-soon-flat"),
            at_least=0.1,
        ),
    ),
    analysis=(
        "The task is hard to find and easy to do, and of all parts curiosity alone looks for it: "
        "it arrives with two seeds of three, nothing else ever does. So the table tells what "
        "helps to explore, and nothing of the parts that help to learn what was found; those "
        "have questions of their own.",
        "Everything together is worse than curiosity alone, because it pays the manager for "
        "curiosity, whose goals the worker is free to ignore, and not the worker, who acts. Paid "
        "for it as well (`policy.worker.icm`) the worker arrives with one seed, and now and then "
        "with another; what remains of the difference may be chance, the weight of empowerment, "
        "which hurts here, or the two levels.",
    ),
)

QUESTIONS: Sequence[Question] = (EXPLORATION, LEVELED, POWER, SELF_TUNING, PARTS, *OF_SENSES)
