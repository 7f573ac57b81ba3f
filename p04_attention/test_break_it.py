"""The sabotages of project 4, and what their experiment measures."""

import math
from functools import partial

import pytest
import torch

from p01_autograd.lab.sabotage import compare, sabotaged
from p04_attention import break_it, build, lm
from p04_attention.break_it import SABOTAGES

BY_NAME = {sabotage.name: sabotage for sabotage in SABOTAGES}


@pytest.fixture(scope="module")
def short():
    """Fewer steps on shorter windows, judged by fewer: enough for every symptom."""
    sizes = {"BLOCK_SIZE": 16, "BATCH_SIZE": 4, "STEPS": 80, "SAMPLE": 5}
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(break_it, name, size)
        patch.setattr(lm, "VAL_EVERY", 80)
        patch.setattr(lm, "validation", partial(lm.validation, n=32))
        yield


@pytest.mark.parametrize("name", BY_NAME)
def test_the_symptom_shows(name, short):
    result = compare("p04_attention", BY_NAME[name], break_it.experiment, [1337])
    assert result.there == 1, (result.healthy, result.broken)


def test_the_leak_is_zero_for_the_shipped_module_alone():
    def leak(module):
        torch.manual_seed(0)
        layers = [module.CausalSelfAttention(32, 2)]
        return break_it.leak(lm.LanguageModel(layers, 10, 32, 8), torch.arange(8)[None])

    assert leak(build) == 0
    for name in ("no_mask", "mask_with_zero", "mask_after_softmax", "no_transpose"):
        assert leak(sabotaged("p04_attention", BY_NAME[name])) > break_it.LEAK, name


def test_without_the_softmax_the_bare_stream_overflows():
    module = sabotaged("p04_attention", BY_NAME["no_softmax"])

    def layer():
        return module.CausalSelfAttention(128, 2)

    bare = break_it.through_depth(layer, 1, normed=False)
    assert len(bare) == break_it.DEPTH + 1 and not math.isfinite(bare[-1])
    assert break_it.through_depth(layer, 1, normed=True)[-1] < 100


def test_the_edits_are_small():
    for sabotage in SABOTAGES:
        assert sabotage.new.rstrip("\n").count("\n") < 3, sabotage.name
