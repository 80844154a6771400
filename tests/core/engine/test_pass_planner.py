"""Groups are read from shapes; the planner takes the cheapest pass that reaches."""

from __future__ import annotations

import itertools
from copy import deepcopy
from dataclasses import dataclass

import pytest

from axpress.core.device.backend import Costs
from axpress.core.device.shape_groups import Group, TensorInfo, layer_shape
from axpress.core.engine.pass_costs import PassCosts
from axpress.core.engine.pass_planner import Part, PassPlanner, StepPlan
from axpress.core.errors import PackageError

H, D = 64, 16


def tensors(groups: list[tuple[int, int]], suffix: str = "") -> tuple[list[TensorInfo], list[TensorInfo]]:
    """IO of a layer with (width, history) groups."""

    def info(name: str, shapes: list[tuple[int, ...]]) -> TensorInfo:
        return TensorInfo(name + suffix, 8 if name == "indices" else 14, tuple(shapes), tuple(0 for _ in shapes))

    inputs = [
        info("mask", [(1, w, p + w) for w, p in groups]),
        info("K_cache", [(1, max(p, 1), D) for _, p in groups]),
        info("V_cache", [(1, max(p, 1), D) for _, p in groups]),
        info("indices", [(1, w) for w, _ in groups]),
        info("input", [(1, w, H) for w, _ in groups]),
    ]
    outputs = [info("output", [(1, w, H) for w, _ in groups]), info("K_cache_out", [(1, w, D) for w, _ in groups])]
    outputs.append(info("V_cache_out", [(1, w, D) for w, _ in groups]))
    return inputs, outputs


def test_groups_come_from_shapes_in_any_order() -> None:
    shape = layer_shape(*tensors([(128, 256), (1, 2047), (128, 0), (1, 511)]), "layer")
    assert shape.decode == (Group(3, 1, 511), Group(1, 1, 2047))
    assert shape.chunks == (Group(2, 128, 0), Group(0, 128, 256))
    assert (shape.rows, shape.hidden, shape.kv_dim) == (2047, H, D)


def test_suffixed_names_and_models_without_chunks() -> None:
    shape = layer_shape(*tensors([(1, 255)], "_1"), "layer")
    assert shape.chunks == () and shape.rows == 255


def test_no_decode_group_is_refused() -> None:
    with pytest.raises(PackageError, match="no decode group"):
        layer_shape(*tensors([(128, 0)]), "l.axmodel")


def test_other_kinds_of_model_are_refused_by_name() -> None:
    inputs, outputs = tensors([(1, 255)])
    with pytest.raises(PackageError, match="K_cache"):
        layer_shape(inputs[:1] + inputs[2:], outputs, "l.axmodel")
    broken = [TensorInfo("K_cache", 14, ((1, 3, D),), (0,)) if t.name == "K_cache" else t for t in inputs]
    with pytest.raises(PackageError, match="hybrid"):
        layer_shape(broken, outputs, "l.axmodel")
    three = [TensorInfo("indices", 8, ((3, 1),), (0,)) if t.name == "indices" else t for t in inputs]
    with pytest.raises(PackageError, match="neither one position for each token nor three"):
        layer_shape(three, outputs, "l.axmodel")


GROUPS = (Group(1, 1, 511), Group(0, 1, 2047), Group(2, 128, 0), Group(3, 128, 256), Group(4, 128, 512))
COSTS = (0.06, 0.10, 0.16, 0.18, 0.20)
HEAD = 0.02


@dataclass
class Seen:
    """What a planner sees of a sequence."""

    num_pending: int = 1
    num_cached: int = 0
    high: int = 100
    served: bool = False
    blocked: bool = False
    needs_chunk: bool = False
    order: tuple[bool, int] = (False, 0)
    num_drafts: int = 0
    chance: float = 0.0


def pass_costs(seconds: tuple[float, ...] = COSTS, **options) -> PassCosts:
    return PassCosts(GROUPS, Costs(seconds, HEAD), **options)


def planner(costs: PassCosts | None = None, **options) -> PassPlanner:
    return PassPlanner(costs or pass_costs(), **options)


def running(count: int, **fields) -> list[Seen]:
    return [Seen(**fields) for _ in range(count)]


# ---- rule 1: prompts go on at once, everybody rides along ----


def test_a_prompt_takes_the_next_pass_and_running_sequences_ride_along() -> None:
    plan = planner().plan([Seen(), Seen(num_pending=100, high=0), Seen()])
    assert plan == StepPlan(3, (Part(0, 1), Part(2, 1), Part(1, 100)))


def test_a_prompt_fills_what_is_left_of_a_pass() -> None:
    plan = planner().plan([Seen(num_pending=500, high=0), *running(3)])
    assert plan is not None and plan.parts[-1] == Part(0, 125)


def test_older_prompts_fill_a_pass_first_and_background_ones_come_last() -> None:
    candidates = [
        Seen(num_pending=100, high=0, order=(True, 1)),
        Seen(num_pending=100, high=0, order=(False, 3)),
        Seen(num_pending=100, high=0, order=(False, 2)),
    ]
    plan = planner().plan(candidates)
    assert plan is not None and plan.parts == (Part(2, 100), Part(1, 28))


def test_a_sequence_out_of_a_chunks_reach_does_not_hold_up_a_prompt() -> None:
    plan = planner().plan([Seen(num_pending=50, high=0), Seen(high=600)])
    assert plan == StepPlan(2, (Part(0, 50),))


def test_who_lies_so_high_that_a_chunk_would_cost_more_than_a_pass_of_its_own_is_left_out() -> None:
    costs = (0.06, 0.10, 0.16, 0.18, 0.90)
    candidates = [Seen(num_pending=50, high=0), Seen(high=100), Seen(high=400)]
    assert planner(pass_costs(costs)).plan(candidates) == StepPlan(3, (Part(1, 1), Part(0, 50)))


def test_those_left_out_have_a_pass_after_the_prompts_but_no_more_time() -> None:
    prompt = Seen(num_pending=400, num_cached=100, high=100)
    left_out, other = Seen(high=600), Seen(high=601)
    assert planner().plan([left_out, other, prompt]) == StepPlan(1, (Part(0, 1),))  # 0.12 s of the chunk's 0.18
    assert planner().plan([other, prompt, left_out]) == StepPlan(3, (Part(1, 128),))  # 0.24 s would be more
    assert planner().plan([left_out, other, prompt], in_turn=False) == StepPlan(3, (Part(2, 128),))


def test_few_prompt_tokens_go_singly_where_that_costs_less() -> None:
    assert planner().plan([Seen(num_pending=2, high=0)]) == StepPlan(0, (Part(0, 1),))
    assert planner().plan([Seen(num_pending=3, high=0)]) == StepPlan(2, (Part(0, 3),))


def test_pictures_go_in_chunks_whatever_that_costs() -> None:
    few = Seen(num_pending=2, high=0, needs_chunk=True)
    assert planner().plan([few]) == StepPlan(2, (Part(0, 2),))
    too_high = Seen(num_pending=100, num_cached=64, high=513, order=(False, 1), needs_chunk=True)
    assert planner().plan([too_high]) is None
    assert planner().plan([too_high, Seen(high=513)]) == StepPlan(1, (Part(1, 1),))
    new = Seen(num_pending=100, high=0, order=(False, 2))
    assert planner().plan([new, too_high]) == StepPlan(2, (Part(0, 100),))
    assert planner().plan([new, too_high], highs=[64, 64]) == StepPlan(3, (Part(1, 100), Part(0, 28)))


# ---- rule 4: beyond the deepest chunk ----


def far(num_pending: int, order: int, num_cached: int = 513) -> Seen:
    return Seen(num_pending=num_pending, num_cached=num_cached, high=513, order=(False, order))


def test_a_prompt_beyond_the_deepest_chunk_goes_token_by_token_in_every_other_pass() -> None:
    prompt, stream = far(400, 1), Seen(high=513)
    assert planner().plan([prompt, stream]) == StepPlan(1, (Part(0, 1),))
    assert planner().plan([stream, prompt]) == StepPlan(1, (Part(0, 1),))
    assert planner().plan([prompt]) == StepPlan(1, (Part(0, 1),))


def test_of_prompts_beyond_the_deepest_chunk_the_oldest_and_the_shortest_take_turns() -> None:
    oldest, shortest, other = far(400, 1), far(10, 3), far(100, 2)
    assert planner().plan([other, shortest, oldest]) == StepPlan(1, (Part(1, 1),))
    assert planner().plan([other, oldest, shortest]) == StepPlan(1, (Part(1, 1),))


def test_an_older_prompt_whose_rows_lie_too_high_does_not_let_younger_ones_pass() -> None:
    displaced, new = far(100, 1, num_cached=64), Seen(num_pending=100, high=0, order=(False, 2))
    assert planner().plan([new, displaced]) == StepPlan(1, (Part(1, 1),))
    assert planner().plan([new, displaced], highs=[64, 64]) == StepPlan(3, (Part(1, 100), Part(0, 28)))


# ---- rule 2: rounds ----


def test_one_sequence_alone_decodes_in_the_smallest_group_that_reaches() -> None:
    for measured in (COSTS, (0.11, *COSTS[1:])):  # the larger one too short by a hiccup: it reads more, all the same
        costs = pass_costs(measured)
        assert planner(costs).plan([Seen(high=511)]) == StepPlan(0, (Part(0, 1),))
        assert planner(costs).plan([Seen(high=512)]) == StepPlan(1, (Part(0, 1),))


def test_a_chunk_runs_in_the_cheapest_group_that_reaches() -> None:
    costs = pass_costs((0.06, 0.10, 0.22, 0.21, 0.20))
    assert [costs.chunk_slot(high) for high in (0, 1, 128, 512, 513)] == [4, 4, 4, 4, None]
    costs = pass_costs((0.06, 0.10, 0.18, 0.16, 0.20))
    assert [costs.chunk_slot(high) for high in (0, 1, 512)] == [3, 3, 4]


def test_many_sequences_share_a_chunk() -> None:
    plan = planner().plan(running(8))
    assert plan is not None and plan.slot == 3 and len(plan.parts) == 8


def test_a_chunk_carries_those_with_low_rows_when_the_rest_would_make_it_dear() -> None:
    costs = (0.06, 0.06, 0.10, 0.10, 0.90)
    split = planner(pass_costs(costs)).plan([*running(4), Seen(high=500)])
    assert split is not None and split.slot == 3 and [p.candidate for p in split.parts] == [0, 1, 2, 3]


def test_everybody_has_a_turn_before_anybody_has_two() -> None:
    candidates = [Seen(served=True, high=600), Seen(high=600)]
    assert planner().plan(candidates) == StepPlan(1, (Part(1, 1),))
    candidates[1].served = True
    assert planner().plan(candidates) == StepPlan(1, (Part(0, 1),))


def test_a_pass_has_no_more_sequences_than_slots_for_logits() -> None:
    plan = planner(pass_costs(max_heads=4)).plan(running(8))
    assert plan is not None and len(plan.parts) == 4


# ---- rule 3: guesses ----


def test_guesses_that_are_likely_make_a_chunk_worth_it_for_one() -> None:
    likely, unlikely = Seen(num_drafts=8, chance=0.95), Seen(num_drafts=8, chance=0.4)
    assert planner().plan([likely]) == StepPlan(3, (Part(0, 1, 8),))
    assert planner().plan([unlikely]) == StepPlan(0, (Part(0, 1),))
    assert planner(drafts=False).plan([likely]) == StepPlan(0, (Part(0, 1),))


def test_in_a_chunk_that_runs_anyway_guesses_ride_along() -> None:
    plan = planner().plan([*running(7), Seen(num_drafts=5, chance=0.3)])
    assert plan is not None and Part(7, 1, 5) in plan.parts


# ---- the rest of rules 4 and 5, and what switches do ----


def test_a_pass_reaches_as_far_as_its_highest_row() -> None:
    plan = planner().plan([*running(7), Seen(high=400)])
    assert plan is not None and plan.slot == 4


def test_who_waits_for_a_common_beginning_is_left_out() -> None:
    candidates = [Seen(num_pending=100, high=0, blocked=True), Seen(num_pending=100, high=0)]
    plan = planner().plan(candidates)
    assert plan is not None and [p.candidate for p in plan.parts] == [1]
    assert planner().plan([candidates[0]]) is None


def test_without_chunks_everything_goes_token_by_token() -> None:
    exact = planner(pass_costs(chunks=False))
    assert exact.costs.max_width == 1
    assert exact.plan([Seen(num_pending=400, high=0), Seen()]) == StepPlan(0, (Part(0, 1),))


def test_a_long_cached_prefix_is_cut_where_chunks_could_not_go_on_from_it() -> None:
    groups = (Group(0, 1, 2047), Group(1, 64, 0), Group(2, 64, 64), Group(3, 64, 192))
    narrow = PassCosts(groups, Costs((0.1, 0.2, 0.2, 0.2), HEAD))
    assert narrow.worth_reusing(64, 250) == 64
    assert narrow.worth_reusing(193, 256) == 192
    assert narrow.worth_reusing(250, 251) == 250


def test_a_pass_is_rated_by_what_it_brings_forward() -> None:
    p, candidates = planner(), [Seen(), Seen(num_pending=100, high=0), Seen(num_drafts=2, chance=0.5)]
    assert p.seconds_per_token(candidates, StepPlan(3, (Part(0, 1), Part(1, 50)))) == pytest.approx((0.18 + HEAD) / 51)
    assert p.seconds_per_token(candidates, StepPlan(3, (Part(2, 1, 2),))) == pytest.approx((0.18 + 1.75 * HEAD) / 1.75)


def test_a_prompt_is_computed_in_chunks_as_far_as_they_reach() -> None:
    reach = 512 + 128
    parts = list(pass_costs().prefill(0, reach + 10))
    assert [(p.slot, p.num_tokens) for p in parts] == [(2, 128), (3, 128), (3, 128), (4, 128), (4, 128), (None, 10)]
    assert sum(p.seconds for p in parts) == pytest.approx(0.16 + 2 * 0.18 + 2 * 0.20 + 10 * 0.10)
    assert list(pass_costs().prefill(0, 2)) == [(None, 2, pytest.approx(2 * 0.06))]


def test_in_the_cheapest_round_low_sequences_share_a_chunk_and_others_go_singly() -> None:
    costs = pass_costs()
    assert costs.round_seconds([600, *[100] * 8]) == pytest.approx(0.18 + 8 * HEAD + 0.10 + HEAD)
    assert costs.round_seconds([600, 100]) == pytest.approx(0.06 + 0.10 + 2 * HEAD)
    assert pass_costs(max_heads=4).round_seconds([100] * 8) == pytest.approx(0.18 + 4 * (0.06 + 2 * HEAD))


def test_a_prompt_costs_a_busy_bank_only_what_its_chunks_add_to_rounds() -> None:
    p = pass_costs()
    assert p.entry_seconds(0, 256, []) == pytest.approx(0.16 + 0.18)
    assert p.entry_seconds(0, 256, [100]) == pytest.approx(2 * (0.20 - 0.08))
    assert p.entry_seconds(0, 256, [100] * 8) == 0.0
    assert p.entry_seconds(600, 610, [100]) == pytest.approx(10 * 0.10)


def test_measured_costs_move_with_what_is_observed_and_ignore_outliers() -> None:
    costs = pass_costs()
    for _ in range(200):
        costs.observe(0, 0.12 + HEAD, 1)
    assert costs.seconds[0] == pytest.approx(0.12, rel=0.01)
    costs.observe(0, 100.0, 1)
    assert costs.seconds[0] < 0.13


def test_a_group_that_was_timed_on_a_busy_host_is_measured_again() -> None:
    """Its figure falls while nobody uses it, a draft then takes it, and what that took is believed."""
    costs = pass_costs((*COSTS[:2], 5.0, 5.0, 5.0))
    offers_draft = [Seen(num_drafts=8, chance=0.9)]
    passes = []
    for _ in range(200):
        planned = planner(costs).plan(offers_draft)
        assert planned is not None
        passes.append(planned.slot)
        costs.observe(planned.slot, COSTS[planned.slot] + HEAD, 1)
    first = passes.index(3)
    assert 16 < first < 100 and set(passes[:first]) == {0} and set(passes[first:]) == {3}
    assert costs.seconds[3] == pytest.approx(COSTS[3], rel=0.01)


def test_a_dear_group_is_tried_ever_more_rarely() -> None:
    costs = pass_costs()
    tried = []
    for i in range(5000):
        planned = planner(costs).plan([Seen(num_drafts=1, chance=0.3)])  # pays only where a chunk costs little
        assert planned is not None
        tried += [i] * (planned.slot > 1)
        costs.observe(planned.slot, COSTS[planned.slot] + HEAD, 1)
    assert 5 <= len(tried) <= 12 and all(b - a >= 16 for a, b in itertools.pairwise(tried))
    assert tried[-1] - tried[-2] > 1000
    assert costs.seconds[1] <= COSTS[1] and costs.seconds[2] <= costs.seconds[3] <= costs.seconds[4]


def test_a_head_that_was_timed_on_a_busy_host_is_corrected() -> None:
    by_passes, by_heads = pass_costs(), pass_costs()
    by_passes.head = by_heads.head = 50 * HEAD
    for _ in range(200):
        by_passes.observe(0, COSTS[0] + HEAD, 1)
        by_heads.observe(3, COSTS[3] + HEAD, 1, (4, 4 * HEAD))
    assert by_passes.head <= COSTS[0] + 2 * HEAD
    assert by_heads.head == pytest.approx(HEAD, rel=0.01) and by_heads.seconds[3] == pytest.approx(COSTS[3], rel=0.1)


def test_a_chunk_that_saves_what_it_lacks_is_taken_for_few_and_never_for_one_alone() -> None:
    costs = PassCosts(GROUPS, Costs((0.06, 0.06, 1.28, 1.28, 1.28), HEAD, empty=0.01))
    assert costs.layers_seconds(2, 128) == 1.28 and costs.layers_seconds(2, 8) == pytest.approx(0.08)
    assert costs.layers_seconds(2, 1) == 0.06  # no less than a decode
    assert costs.layers_seconds(0, 1) == 0.06
    plan = planner(costs).plan(running(8))
    assert plan is not None and plan.slot == 3 and len(plan.parts) == 8
    assert planner(costs).plan(running(1)) == StepPlan(0, (Part(0, 1),))
    assert costs.round_seconds([100] * 8) == pytest.approx(0.08 + 8 * HEAD)
    assert list(costs.prefill(0, 34)) == [(2, 34, pytest.approx(0.34))]


def test_a_decision_is_taken_from_numbers_alone() -> None:
    """What a planner was asked before does not count, and whom it is asked about it leaves as they are."""
    questions = [
        [*running(5), Seen(num_pending=70, high=0), Seen(num_drafts=3, chance=0.5)],
        [Seen(high=600), Seen(high=601), Seen(num_pending=400, num_cached=100, high=100)],
        [far(400, 1), Seen(high=513)],
        [Seen(num_pending=500, high=0, order=(False, 2)), far(10, 1), *running(3)],
        [Seen(num_drafts=8, chance=0.95)],
    ]
    fresh, untouched, asked_before = [planner().plan(q) for q in questions], deepcopy(questions), planner()
    for _ in range(3):
        assert [asked_before.plan(q) for q in questions] == fresh and questions == untouched
