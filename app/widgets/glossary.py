"""The words of the explorer: explained by the (?) of each figure whose title uses them, and in one list on Overview."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word and its meaning in one sentence."""

    name: str
    meaning: str
    forms: str = ""  # regular expression of its appearances in a title; default: the name, and its plural

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches the word as a whole, in any case unless `forms` says otherwise."""
        return re.compile(rf"(?<![\w-])(?:{self.forms or f'(?i:{re.escape(self.name)}s?)'})(?![\w-])")


WORDS = [  # longer words before those that they contain
    Word("run", "A training: one folder with its checkpoints, traces and plans.", "(?i:runs?) folder"),
    Word("checkpoint", "The weights of a model at one training step."),
    Word("trace", "One sampling job: every exit of every sample, its images, and its settings."),
    Word(
        "trace A, trace B",
        "The selected trace, and an optional second one; each has one colour on every page.",
        r"(?i:trace )[AB]|[AB](?=:| measured| estimated)",
    ),
    Word("cohort", "The samples that the figures count: all, or those named in the sidebar or boxed on Images."),
    Word("step", "Position 0, 1, … in the order of sampling."),
    Word("timestep t", "The noise level of a step: T−1 is pure noise, 0 the image.", "(?i:timesteps?)|t"),
    Word(
        "solver",
        "The rule that computes the next, less noisy image: DDPM, DDIM or DPM-Solver++.",
        "(?i:solver)|DDIM|DDPM",
    ),
    Word("block", "One transformer block of the network, which has N of them."),
    Word("exit layer", "Number of blocks that are run before the sample exits: 0 skips all, N is no early exit."),
    Word("middle block", "The block at the bottom of the U-ViT; the long skip connections begin after it."),
    Word("layer ratio", "Mean exit layer / N: the share of blocks that are run."),
    Word("full network", "The network without early exit, at every step: the sampler that exits have to beat."),
    Word(
        "evaluation",
        "Cost unit of a plan: the GFLOPs of one run of the full network.",
        "(?i:evaluations?)(?! of)|(?i:evaluations? of the full network)",
    ),
    Word("GFLOPs", "10⁹ floating-point operations, 2 per multiply-accumulate, attention products included."),
    Word("output head", "The small network at an exit that turns the state of a block into a prediction of the noise."),
    Word("UEM", "Uncertainty estimation module: predicts, before each block, how wrong an exit there would be."),
    Word("u", "Uncertainty, in [0, 1]: the UEM's estimate of the mean tanh|error| of an exit (Eq. 5 and 6).", "u"),
    Word("threshold τ", "A sample exits at the first layer whose u is at most τ.", "(?i:thresholds?)|τ"),
    Word(
        "policy",
        "The rule that decides the exits, such as threshold:0.1 or fixed:6; never: the full network.",
        "(?i:polic(?:y|ies))",
    ),
    Word("static schedule", "One exit layer per timestep, the same for all samples."),
    Word("oracle", "Exits chosen with the true error known: a bound on what a policy can reach."),
    Word("plan", "Timesteps, and for each of them an exit and a readout, chosen together and fixed before sampling."),
    Word(
        "readout",
        "How an exit gets its prediction: head (its output head), memory and deep (the later blocks' states of the "
        "sample's last full evaluations), output (earlier predictions reused), gaussian (closed form for Gaussian "
        "data), input (ε = x).",
        "(?i:readouts?)|gaussian|teleport|input:\\S+|output:\\S+|output|memory:\\S+|deep:\\S+",
    ),
    Word(
        "front", "The best measured quality at each cost. A sampler pays only if it is below the full network's front."
    ),
    Word("uniform steps", "The full network at evenly spaced timesteps."),
    Word(
        "fd-…",
        "Fréchet distance of the images to real ones, in the features of a small classifier; lower is better.",
        r"fd-(?!pixels)\w+",
    ),
    Word("fd-pixels", "The same distance of the images at 8×8 pixels, without a network.", "fd-pixels"),
    Word("guard", "A second distance that a plan must not worsen, so that no plan exploits the first."),
    Word(
        "kid-…",
        "Kernel distance of the images to real ones, unbiased in their number; lower is better.",
        r"(?i:kid)(?:-\w+)?",
    ),
    Word("FID", "Fréchet distance in the features of Inception; comparable only at equal numbers of images."),
    Word("95 % interval", "Covers the value in 95 % of repetitions with other samples.", r"95 % intervals?|\[95 %\]"),
    Word("Pareto front", "Samplers that no cheaper one equals: each is better than the one before beyond the noise."),
    Word(
        "paired difference", "Difference of two samplers with equal noise, which their common variation does not blur."
    ),
    Word("N", "Number of samples behind a number; of layers, the number of blocks.", r"N ="),
    Word(
        "measured",
        "Sampled with these exits (closed loop): an exit changes the input of all later steps.",
        "(?i:measured)|closed loop",
    ),
    Word(
        "estimated (open loop)",
        "Counted from recorded u, as if exits had no effect on later steps.",
        "(?i:estimated?s?)|open loop|open-loop",
    ),
    Word("deviation", "RMS difference of an exit's prediction of ε from the full network's, for equal input."),
    Word("excess error", "√(MSE of an exit − MSE of the full network), of ε on held-out images; 0: nothing is lost."),
    Word("calibration", "Comparison of u with the real error of each exit on held-out images."),
    Word("ECE", "Expected calibration error: mean |u − error| over ten bins of equally many images."),
    Word("speed-up", "Seconds of the full network / seconds with exits, on the same machine."),
    Word(
        "ε, x_t, x_0",
        "The noise, the noisy image at timestep t, and the clean image; the network predicts ε from x_t.",
        "ε|x_t|x_0|x0",
    ),
]


def words_in(text: str) -> list[Word]:
    """The words that a text uses, in the order of the list; part of a longer word is no word."""
    found = []
    for word in sorted(WORDS, key=lambda word: -len(word.name)):
        text, count = word.pattern.subn("·", text)
        if count:
            found.append(word)
    return sorted(found, key=WORDS.index)


def with_words(help_text: str, shown: str) -> str:
    """A help text, and below it the meaning of each word in what is shown beside it."""
    lines = [f"- **{word.name}**: {word.meaning}" for word in words_in(shown)]
    return "\n\n".join(filter(None, [help_text, "\n".join(lines)]))


def meaning(name: str) -> str:
    """What a word means. Raises KeyError for an unknown one."""
    return {word.name: word.meaning for word in WORDS}[name]
