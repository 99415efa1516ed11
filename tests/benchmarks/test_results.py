"""What the README and RESULTS.md say is what the result files hold, and a queue goes on where it stopped."""

import shutil
import threading

import pytest

from sparsedict.benchmarks import goals, page
from sparsedict.benchmarks.goal import Goal, ratio_of_means, unit_means
from sparsedict.benchmarks.result_table import RESULTS, ResultTable, read_results
from sparsedict.benchmarks.runs import Run
from sparsedict.benchmarks.world import goals as world_goals
from sparsedict.benchmarks.world import plans
from sparsedict.benchmarks.world.queue import work_through
from sparsedict.evaluation.peers import LABELS


def test_readme_and_results_page_are_made_from_the_files(tmp_path):
    readme = page.README.read_text("utf-8")
    assert page.BEGIN in readme and page.with_results(readme) == readme, "run: python -m sparsedict.benchmarks tables"
    copy = tmp_path / "results"
    shutil.copytree(RESULTS, copy)
    assert page.write_tables(copy).read_text("utf-8") == (RESULTS.parent / page.PAGE).read_text("utf-8")


def test_no_peer_has_fewer_trials_than_ours_and_none_saw_the_report():
    count = {name: len(trials) for name, (_, trials) in plans.trials().items()}
    assert len(count) == 17
    more = {LABELS[method] + plans.QUIET_SUFFIX: len(rates) for method, rates in plans.MORE_QUIET_RATES.items()}
    assert count == {name: count[plans.OURS_LABEL] + more.get(name, 0) for name in count}
    assert {run.split for run in plans.search_runs()} == {"search"}
    assert {result["run"]["split"] for result in read_results("E1")} <= {"report"}


def test_many_atoms_are_another_shape_of_ours_and_no_peer():
    chosen = plans.with_many_atoms(plans.winners(read_results("E1-search")))
    runs = plans.report_runs(chosen, plans.CONCEPTS, 2)
    many = [run for run in runs if plans.label(vars(run)) == plans.MANY_ATOMS_LABEL]
    assert len(many) == 2 * len(plans.CONCEPTS) and {run.settings["atoms"] for run in many} == {489}
    # Stopped half-way, a queue has as many runs of each concept.
    assert {run.seed for run in runs[: len(runs) // 2]} == {0}

    def result(method, fidelity, settings):
        run = {"method": method, "concept": "zorp", "seed": 0, "quiet_weight": 0.0, "settings": settings}
        return {"run": run, "concept_fidelity": fidelity, "drift": 0.1}

    results = [result("ours", 0.3, {}), result("ours", 0.9, plans.MANY_ATOMS), result("lora", 0.2, {}), result("dora", 0.25, {})]
    assert world_goals.best_peer(results) == "DoRA" and world_goals.ratios(results, "DoRA", "concept_fidelity") == [0.3 / 0.25]


def test_every_goal_of_more_than_one_value_has_an_interval_and_every_missed_one_a_reason():
    listed, _, reasons = goals.goals_table(RESULTS).partition("\n\n")
    rows = [line.strip("| ").split(" | ") for line in listed.splitlines()[2:]]
    count = {text: int(over.split()[0]) for text, _, _, over, _ in rows}
    assert all("±" in found for text, _, found, _, _ in rows if count[text] > 1)
    # A count, a file's size, and a median of many frames.
    assert {text[:2] for text in count if count[text] == 1} <= {"E2", "E7", "Br"}
    missed = [text for text, _, _, _, state in rows if state.startswith("missed")]
    assert missed and all(goals.short(text) in reasons for text in missed)


def test_seeds_of_one_concept_are_one_value():
    assert unit_means([("zorp", 1.0), ("quax", 4.0), ("zorp", 3.0)]) == [2.0, 4.0]
    goal = Goal("", 0.9, [0.8, 1.2], "concepts")
    assert goal.found == 1.0 and goal.state == "reached, within the interval"
    assert Goal("", 0.9, [0.5], "concepts", at_least=False).state == "reached"


def test_a_ratio_of_noisy_differences_is_that_of_their_means():
    found, _ = ratio_of_means([1.0, 1.2, 1.1], [0.01, 1.2, 1.1])
    assert found == pytest.approx(3.3 / 2.31) and found < sum((100, 1, 1)) / 3
    assert ratio_of_means([2.0, 4.0], [1.0, 2.0]) == (2.0, [2.0, 2.0])  # no noise, no interval


def test_presets_and_demo_use_what_the_search_found():
    from sparsedict.demo.plan import Plan
    from sparsedict.trainer import PRESETS, TrainConfig

    found, preset, plan = plans.winners(read_results("E1-search")), TrainConfig(**PRESETS["concept"]), Plan()
    ours = found["sparse dictionary"]["run"]
    assert preset.quiet_weight == ours["quiet_weight"] and all(getattr(preset, k) == v for k, v in ours["settings"].items())
    assert plan.lora_rate == found["LoRA"]["run"]["learning_rate"]
    quiet = found["LoRA + quiet term"]["run"]
    assert (plan.lora_quiet_rate, plan.lora_quiet_weight) == (quiet["learning_rate"], quiet["quiet_weight"])


def test_the_edit_preset_and_its_peer_are_what_the_search_found():
    from sparsedict.benchmarks.world.editing import best_setting
    from sparsedict.demo.plan import Plan
    from sparsedict.trainer import PRESETS, TrainConfig

    searched, preset = read_results("E3-search"), TrainConfig(**PRESETS["edit"])
    ours = best_setting(searched, "ours")
    assert preset.learning_rate == ours["learning_rate"] and all(getattr(preset, k) == v for k, v in ours["settings"].items())
    assert Plan().edit_lora_rate == best_setting(searched, "lora")["learning_rate"]


def test_the_demo_merges_at_the_strengths_that_the_search_found():
    from sparsedict.benchmarks.world.merging import WITH_STYLE, best_strengths
    from sparsedict.demo.plan import Plan

    assert Plan().merge_strengths == best_strengths(read_results("E4-search"))["sparse dictionary, composed", WITH_STYLE]


def test_an_edit_trial_that_copies_the_picture_is_not_chosen():
    from sparsedict.benchmarks.world.editing import best_setting

    def trial(rate, kept, followed):
        return {"run": {"method": "lora", "learning_rate": rate, "settings": {}}, "rows": [{"subject_kept": kept, "prompt_fidelity": followed}]}

    trials = [trial(1e-3, 0.2, 1.0), trial(1e-2, 0.3, 0.95), trial(3e-2, 0.9, 0.5)]
    assert best_setting(trials, "lora")["learning_rate"] == 1e-2
    assert best_setting(trials[2:], "lora")["learning_rate"] == 3e-2


def test_a_done_run_is_not_done_again_but_for_another_base(tmp_path):
    class World:
        def __init__(self, base):
            self.backend = type("Backend", (), {"fingerprint": lambda self: base})()

    measured = []

    def measure(run, world):
        measured.append(run)
        return {"concept_fidelity": 0.5, "drift": 0.1}

    runs = [Run("ours", "zorp", seed) for seed in (0, 1)]
    work_through("T", runs, World("a"), measure, tmp_path)
    work_through("T", runs, World("a"), measure, tmp_path)
    assert len(measured) == 2
    work_through("T", runs[:1], World("b"), measure, tmp_path)
    assert len(measured) == 3 and ResultTable("T", tmp_path).lines()[runs[0].key]["base_fingerprint"] == "b"


def test_a_table_is_sorted_and_several_may_write_to_it(tmp_path):
    def put(numbers):
        for number in numbers:
            ResultTable("T", tmp_path).put(f"{number:02}", {"value": number})

    writers = [threading.Thread(target=put, args=(range(start, 20, 2),)) for start in (1, 0)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    put([7])
    lines = (tmp_path / "T.jsonl").read_text().splitlines()
    assert lines == sorted(lines) and len(lines) == 20
    assert [found["value"] for found in read_results("T", tmp_path)] == list(range(20))
    assert read_results("none", tmp_path) == []


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 1e-3}, {"quiet_weight": 0.0}, {"settings": {"nested": 0.5}}, {"split": "search"}])
def test_a_result_belongs_to_one_setting(change):
    plain = {"method": "ours", "concept": "zorp", "seed": 0}
    assert Run(**plain).key != Run(**{**plain, **change}).key
