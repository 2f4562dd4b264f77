import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_sets import CARD, make_image_set, make_partition

from forgetbench.datasets.scenarios import make_scenario, scenarios
from forgetbench.datasets.scenarios.base import Split
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import ForgetBenchError, UsageError

class_sets = st.builds(make_partition, seed=st.integers(0, 50), repeats=st.integers(0, 20))
attribute_sets = st.builds(
    make_partition, seed=st.integers(0, 50), repeats=st.integers(0, 20), attributes=st.just(value=True)
)
requests = st.one_of(
    st.builds(lambda count: ("random", {"count": count}), st.integers(1, 40)),
    st.builds(lambda share: ("random", {"fraction": share}), st.floats(0.05, 0.9)),
    st.builds(lambda people: ("identity", {"people": people}), st.lists(st.integers(0, 5), min_size=1, max_size=1)),
    st.builds(
        lambda rate, known: ("mislabelled", {"rate": rate, "known": known}), st.floats(0.1, 0.5), st.floats(0.1, 1)
    ),
)


def draw_or_none(partition, request, draw=0) -> Split | None:
    try:
        return make_scenario(*request).draw(partition, draw)
    except UsageError:  # repeated images may join all people, or be too large a group for the count
        return None


@settings(max_examples=60)
@given(st.one_of(class_sets, attribute_sets), requests, st.integers(0, 5))
def test_split_covers_training_set_and_is_reproducible(partition, request, draw):
    split = draw_or_none(partition, request, draw)
    if split is None:
        return
    rows = np.concatenate([split.forget, split.retain, split.withheld])
    assert np.array_equal(np.sort(rows), np.arange(60))
    for part in (split.forget, split.retain, split.withheld, split.test, split.test_forgotten, split.validation):
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)
        assert not part.flags.writeable
    assert len(split.forget)
    assert len(split.retain)
    assert np.array_equal(np.sort(np.concatenate([split.test, split.test_forgotten])), np.arange(24))
    assert split.train_labels.shape == partition.train.labels.shape
    assert make_scenario(*request).draw(partition, draw).sha256 == split.sha256


@settings(max_examples=60)
@given(st.one_of(class_sets, attribute_sets), requests)
def test_images_with_equal_bytes_stay_on_one_side(partition, request):
    split = draw_or_none(partition, request)
    if split is None:
        return
    side = np.zeros(60, dtype=int)
    side[split.retain], side[split.withheld] = 1, 2
    assert np.array_equal(side, side[partition.train.first_copy])


@settings(max_examples=40)
@given(class_sets, st.integers(0, 3), st.integers(1, 4))
def test_identity_never_divides_a_person(partition, draw, count):
    split = draw_or_none(partition, ("identity", {"count": count}), draw)
    if split is None:
        return
    people = partition.train.identities
    assert not set(people[split.forget]) & set(people[split.retain])


def test_other_draws_and_seeds_differ():
    partition = make_partition()
    for request in (
        ("random", {"count": 20}),
        ("identity", {"count": 2}),
        ("mislabelled", {"known": 0.5}),
        ("class", {}),
    ):
        scenario = make_scenario(*request)
        assert scenario.draw(partition, 0).sha256 != scenario.draw(partition, 1).sha256, request
        assert scenario.draw(partition, 0).sha256 != scenario.draw(partition, 0, rng_seed=1).sha256, request


def test_random_split_never_changes():
    """The rows were noted when the scenario was written: a change would make published results incomparable."""
    partition = make_partition()
    assert make_scenario("random", {"fraction": 0.1}).draw(partition, 0).forget.tolist() == [24, 29, 34, 35, 47, 56]


def test_random_smaller_request_is_subset_of_larger():
    partition = make_partition()
    small = make_scenario("random", {"count": 6}).draw(partition).forget
    large = make_scenario("random", {"fraction": 0.5}).draw(partition).forget
    assert (len(small), len(large)) == (6, 30)
    assert set(small) <= set(large)


@pytest.mark.parametrize("name", ["c", 2, "2", ["c"]])
def test_class_by_name_or_number_leaves_train_and_test(name):
    partition = make_partition()
    split = make_scenario("class", {"classes": name}).draw(partition)
    assert split.track == "erase"
    assert split.forget.tolist() == list(range(2, 60, 4))
    assert split.test_forgotten.tolist() == list(range(2, 24, 4))
    assert set(partition.validation.labels[split.validation]) == {0, 1, 3}


def test_class_draws_cover_all_classes():
    partition = make_partition()
    draws = [set(partition.train.labels[make_scenario("class").draw(partition, g).forget]) for g in range(4)]
    assert set().union(*draws) == {0, 1, 2, 3}


def test_mislabelled_flips_once_and_draws_known_rows():
    partition = make_partition()
    scenario = make_scenario("mislabelled", {"rate": 0.4, "known": 0.5})
    first, second = scenario.draw(partition, 0), scenario.draw(partition, 1)
    assert np.array_equal(first.train_labels, second.train_labels)
    wrong = np.flatnonzero(first.train_labels != partition.train.labels)
    assert len(wrong) == 24
    assert np.array_equal(wrong, np.sort(np.concatenate([first.forget, first.withheld])))
    assert (len(first.forget), len(first.withheld)) == (12, 12)
    assert first.forget.tolist() != second.forget.tolist()
    assert first.track == "match-oracle"


def test_mislabelled_flips_one_attribute():
    partition = make_partition(attributes=True)
    split = make_scenario("mislabelled", {"rate": 0.5}).draw(partition)
    changed = (split.train_labels != partition.train.labels).sum(axis=1)
    assert set(changed[split.forget]) == {1}
    assert set(changed[split.retain]) == {0}


def test_mislabelled_is_uniform_over_other_classes():
    images = make_image_set(4000, 0, people=0)
    split = make_scenario("mislabelled", {"rate": 0.75}).draw(Partition("toy", images, images, images, None, CARD))
    step = (split.train_labels - images.labels)[split.forget] % 4
    counts = np.bincount(step, minlength=4)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


def test_identity_people_sharing_an_image_are_forgotten_together():
    images = make_image_set(12, 3, people=0).images.copy()
    people = np.repeat([10, 20, 30, 40], 3)
    images[11] = images[0]  # one image of two people, 10 and 40
    train = ImageSet(images, np.arange(12) % 2, ("a", "b"), people)
    partition = Partition("toy", train, train, train, None, CARD)
    split = make_scenario("identity", {"people": [40]}).draw(partition)
    assert set(people[split.forget]) == {10, 40}
    shares = [len(make_scenario("identity", {"count": 2}).draw(partition, g).forget) for g in range(20)]
    assert set(shares) == {6, 9}


def test_identity_of_classes_is_on_erase_track():
    labels = np.arange(60) % 4
    train = ImageSet(make_image_set(60, 0).images, labels, tuple("abcd"), labels + 100)
    partition = Partition("toy", train, train.take(np.arange(16)), train.take(np.arange(24)), None, CARD)
    split = make_scenario("identity", {"people": [102]}).draw(partition)
    assert split.track == "erase"
    assert set(labels[split.test_forgotten]) == {2}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random", {"fraction": 1.0}, r"fraction must be a number in \(0, 1\) or None, not 1.0"),
        ("random", {"fraction": 0}, r"fraction must be a number in \(0, 1\) or None, not 0"),
        ("random", {}, "either fraction or count"),
        ("random", {"fraction": 0.1, "count": 3}, "either fraction or count"),
        ("random", {"count": 60}, "60 of 60 training images"),
        ("random", {"fraction": 0.001}, "0 of 60 training images"),
        ("random", {"share": 0.1}, "Unknown option 'share'.*Available: fraction, count"),
        ("class", {"classes": ["cat"]}, "Unknown class 'cat'.*Available: a, b, c, d"),
        ("class", {"classes": [4]}, "Unknown class '4'"),
        ("class", {"classes": [-1]}, "Unknown class '-1'"),
        ("class", {"classes": list("abcd")}, "all 60 training images"),
        ("class", {"count": 4}, "at least one must remain"),
        ("identity", {"count": 99}, "99 of 6 people"),
        ("identity", {"people": [77]}, "no person in the training set has number 77"),
        ("identity", {"people": [1], "count": 1}, "give either people, or a fraction"),
        ("mislabelled", {"rate": 0.001}, "mislabels none"),
        ("mislabelled", {"known": 0}, "known must be"),
    ],
)
def test_wrong_request_error_says_how_to_fix_it(name, options, message):
    with pytest.raises(UsageError, match=message):
        make_scenario(name, options).draw(make_partition())


def test_incompatible_image_set_error_lists_scenarios():
    with pytest.raises(UsageError, match=r"'toy' has no identities\. Scenarios that work with it: class, .*random"):
        make_scenario("identity", {"count": 1}).draw(make_partition(people=0))
    with pytest.raises(UsageError, match=r"labeled with attributes, not with classes\. Scenarios that work"):
        make_scenario("class").draw(make_partition(attributes=True))


def test_split_not_covering_training_set_is_refused():
    rows = np.arange(3)
    with pytest.raises(ForgetBenchError, match="disjoint and cover"):
        Split(rows, rows, rows[:0], np.zeros(6, int), rows, rows, rows, "erase")


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_is_documented(name):
    scenario = scenarios.get(name)
    assert scenario.name == name
    assert scenario.title
    assert all(option.help.endswith(".") for option in scenario.options())


def named(names):
    labels = np.arange(60) % len(names)
    images = make_image_set(60, 0).images
    train = ImageSet(images, labels, names, labels, people=names)
    return Partition("toy", train, train.take(np.arange(16)), train.take(np.arange(24)), None, CARD)


@pytest.mark.parametrize(("scenario", "option"), [("class", "classes"), ("identity", "people")])
@pytest.mark.parametrize("value", [2, "2"])
def test_numeric_name_is_read_as_name(scenario, option, value):
    partition = named(("1", "2", "3"))
    split = make_scenario(scenario, {option: [value]}).draw(partition)
    assert set(partition.train.labels[split.forget]) == {1}
    with pytest.raises(UsageError, match=r"Unknown (class|person) '0'.*Available: 1, 2, 3"):
        make_scenario(scenario, {option: [0]}).draw(partition)


@pytest.mark.parametrize("value", ["ben", 1, "1"])
def test_identity_accepts_names_and_numbers(value):
    partition = named(("anna", "ben", "carla"))
    split = make_scenario("identity", {"people": [value]}).draw(partition)
    assert set(partition.train.labels[split.forget]) == {1}
    with pytest.raises(UsageError, match=r"Unknown person 'bern'\. Did you mean 'ben'"):
        make_scenario("identity", {"people": ["bern"]}).draw(partition)


def test_identity_of_another_part_error_names_people():
    train = make_image_set(60, 0, people=2)
    other_part = make_image_set(20, 1, people=1)
    names = ("anna", "ben", "carla")
    parts = [
        ImageSet(images.images, images.labels, images.classes, identities, people=names)
        for images, identities in (
            (train, train.identities),
            (other_part, other_part.identities + 2),
            (other_part, other_part.identities + 2),
        )
    ]
    with pytest.raises(UsageError, match=r"'carla' is not in the training set\. Its 2 people are anna, ben"):
        make_scenario("identity", {"people": ["carla"]}).draw(Partition("toy", *parts, None, CARD))
