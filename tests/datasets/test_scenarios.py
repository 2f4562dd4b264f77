import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.datasets.scenarios import make_scenario, scenarios
from forgetbench.datasets.scenarios.base import Split
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import ForgetBenchError, UsageError

CARD = DatasetCard(name="toy", title="Toy", description="Noise.", license="CC0")


def toy_set(count, seed, *, classes=4, people=6, repeats=0, attributes=False) -> ImageSet:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, 3, 3), dtype=np.uint8)
    for target in rng.integers(0, count, repeats):
        images[target] = images[rng.integers(0, count)]
    labels = rng.integers(0, 2, (count, 3)) if attributes else np.arange(count) % classes
    names = ("male", "smiling", "young") if attributes else tuple("abcdefgh"[:classes])
    return ImageSet(images, labels, names, rng.integers(0, people, count) if people else None)


def toy_partition(seed=0, **kind) -> Partition:
    return Partition(
        "toy", toy_set(60, seed, **kind), toy_set(16, seed + 1, **kind), toy_set(24, seed + 2, **kind), None, CARD
    )


class_sets = st.builds(toy_partition, seed=st.integers(0, 50), repeats=st.integers(0, 20))
attribute_sets = st.builds(
    toy_partition, seed=st.integers(0, 50), repeats=st.integers(0, 20), attributes=st.just(value=True)
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


@settings(max_examples=60, deadline=None)
@given(st.one_of(class_sets, attribute_sets), requests, st.integers(0, 5))
def test_every_split_covers_the_training_set_and_is_drawn_again_alike(partition, request, draw):
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


@settings(max_examples=60, deadline=None)
@given(st.one_of(class_sets, attribute_sets), requests)
def test_images_with_the_same_bytes_stay_on_one_side(partition, request):
    split = draw_or_none(partition, request)
    if split is None:
        return
    side = np.zeros(60, dtype=int)
    side[split.retain], side[split.withheld] = 1, 2
    assert np.array_equal(side, side[partition.train.first_copy])


@settings(max_examples=40, deadline=None)
@given(class_sets, st.integers(0, 3), st.integers(1, 4))
def test_people_are_never_split(partition, draw, count):
    split = draw_or_none(partition, ("identity", {"count": count}), draw)
    if split is None:
        return
    people = partition.train.identities
    assert not set(people[split.forget]) & set(people[split.retain])


def test_another_draw_forgets_others():
    partition = toy_partition()
    for request in (
        ("random", {"count": 20}),
        ("identity", {"count": 2}),
        ("mislabelled", {"known": 0.5}),
        ("class", {}),
    ):
        scenario = make_scenario(*request)
        assert scenario.draw(partition, 0).sha256 != scenario.draw(partition, 1).sha256, request
        assert scenario.draw(partition, 0).sha256 != scenario.draw(partition, 0, rng_seed=1).sha256, request


def test_a_drawn_split_never_changes():
    """The rows were noted when the scenario was written: a change would make published results incomparable."""
    partition = toy_partition()
    assert make_scenario("random", {"fraction": 0.1}).draw(partition, 0).forget.tolist() == [24, 29, 34, 35, 47, 56]


def test_a_smaller_random_request_lies_within_a_larger_one():
    partition = toy_partition()
    small = make_scenario("random", {"count": 6}).draw(partition).forget
    large = make_scenario("random", {"fraction": 0.5}).draw(partition).forget
    assert (len(small), len(large)) == (6, 30)
    assert set(small) <= set(large)


@pytest.mark.parametrize("name", ["c", 2, "2", ["c"]])
def test_a_class_goes_by_name_or_number_from_training_and_from_test(name):
    partition = toy_partition()
    split = make_scenario("class", {"classes": name}).draw(partition)
    assert split.track == "erase"
    assert split.forget.tolist() == list(range(2, 60, 4))
    assert split.test_forgotten.tolist() == list(range(2, 24, 4))
    assert set(partition.validation.labels[split.validation]) == {0, 1, 3}


def test_classes_are_taken_in_turns_until_all_were_forgotten():
    partition = toy_partition()
    draws = [set(partition.train.labels[make_scenario("class").draw(partition, g).forget]) for g in range(4)]
    assert set().union(*draws) == {0, 1, 2, 3}


def test_wrong_labels_are_drawn_once_and_what_is_known_of_them_for_every_draw():
    partition = toy_partition()
    scenario = make_scenario("mislabelled", {"rate": 0.4, "known": 0.5})
    first, second = scenario.draw(partition, 0), scenario.draw(partition, 1)
    assert np.array_equal(first.train_labels, second.train_labels)
    wrong = np.flatnonzero(first.train_labels != partition.train.labels)
    assert len(wrong) == 24
    assert np.array_equal(wrong, np.sort(np.concatenate([first.forget, first.withheld])))
    assert (len(first.forget), len(first.withheld)) == (12, 12)
    assert first.forget.tolist() != second.forget.tolist()
    assert first.track == "match-oracle"


def test_a_wrong_attribute_label_differs_in_one_attribute():
    partition = toy_partition(attributes=True)
    split = make_scenario("mislabelled", {"rate": 0.5}).draw(partition)
    changed = (split.train_labels != partition.train.labels).sum(axis=1)
    assert set(changed[split.forget]) == {1}
    assert set(changed[split.retain]) == {0}


def test_wrong_labels_are_uniform_over_the_other_classes():
    images = toy_set(4000, 0, people=0)
    split = make_scenario("mislabelled", {"rate": 0.75}).draw(Partition("toy", images, images, images, None, CARD))
    step = (split.train_labels - images.labels)[split.forget] % 4
    counts = np.bincount(step, minlength=4)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


def test_people_who_share_an_image_go_together():
    images = toy_set(12, 3, people=0).images.copy()
    people = np.repeat([10, 20, 30, 40], 3)
    images[11] = images[0]  # one picture, filed under 40 as well as under 10
    train = ImageSet(images, np.arange(12) % 2, ("a", "b"), people)
    partition = Partition("toy", train, train, train, None, CARD)
    split = make_scenario("identity", {"people": [40]}).draw(partition)
    assert set(people[split.forget]) == {10, 40}
    shares = [len(make_scenario("identity", {"count": 2}).draw(partition, g).forget) for g in range(20)]
    assert set(shares) == {6, 9}


def test_forgetting_people_who_are_classes_is_erasure():
    labels = np.arange(60) % 4
    train = ImageSet(toy_set(60, 0).images, labels, tuple("abcd"), labels + 100)
    partition = Partition("toy", train, train.take(np.arange(16)), train.take(np.arange(24)), None, CARD)
    split = make_scenario("identity", {"people": [102]}).draw(partition)
    assert split.track == "erase"
    assert set(labels[split.test_forgotten]) == {2}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random", {"fraction": 1.0}, "option 'fraction' is 1.0: input should be less than 1"),
        ("random", {"fraction": 0}, "greater than 0"),
        ("random", {}, "either fraction or count"),
        ("random", {"fraction": 0.1, "count": 3}, "either fraction or count"),
        ("random", {"count": 60}, "60 of 60 training images"),
        ("random", {"fraction": 0.001}, "0 of 60 training images"),
        ("random", {"share": 0.1}, "There is no option 'share'.*There are: fraction, count"),
        ("class", {"classes": ["cat"]}, "There is no class 'cat'.*There are: a, b, c, d"),
        ("class", {"classes": [4]}, "There is no class '4'"),
        ("class", {"classes": [-1]}, "There is no class '-1'"),
        ("class", {"classes": list("abcd")}, "all 60 training images"),
        ("class", {"count": 4}, "at least one must stay"),
        ("identity", {"count": 99}, "99 of 6 people"),
        ("identity", {"people": [77]}, "nobody in the training set has number 77"),
        ("identity", {"people": [1], "count": 1}, "not both"),
        ("mislabelled", {"rate": 0.001}, "mislabels none"),
        ("mislabelled", {"known": 0}, "option 'known'"),
    ],
)
def test_a_wrong_request_says_how_to_mend_it(name, options, message):
    with pytest.raises(UsageError, match=message):
        make_scenario(name, options).draw(toy_partition())


def test_an_image_set_without_people_or_classes_is_told_what_works():
    with pytest.raises(UsageError, match=r"'toy' has no identities; scenarios that work with it: class, .*random"):
        make_scenario("identity", {"count": 1}).draw(toy_partition(people=0))
    with pytest.raises(UsageError, match="labeled with attributes, not with classes; scenarios that work"):
        make_scenario("class").draw(toy_partition(attributes=True))


def test_a_split_must_cover_the_training_set():
    rows = np.arange(3)
    with pytest.raises(ForgetBenchError, match="disjoint and cover"):
        Split(rows, rows, rows[:0], np.zeros(6, int), rows, rows, rows, "erase")


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_says_what_it_is(name):
    scenario = scenarios.get(name)
    assert scenario.name == name
    assert scenario.title
    assert all(option.description.endswith(".") for option in scenario.options())


def named(names):
    labels = np.arange(60) % len(names)
    images = toy_set(60, 0).images
    train = ImageSet(images, labels, names, labels, people=names)
    return Partition("toy", train, train.take(np.arange(16)), train.take(np.arange(24)), None, CARD)


@pytest.mark.parametrize(("scenario", "option"), [("class", "classes"), ("identity", "people")])
@pytest.mark.parametrize("asked", [2, "2"])
def test_a_name_that_is_a_number_is_a_name(scenario, option, asked):
    partition = named(("1", "2", "3"))
    split = make_scenario(scenario, {option: [asked]}).draw(partition)
    assert set(partition.train.labels[split.forget]) == {1}
    with pytest.raises(UsageError, match=r"There is no (class|person) '0'.*There are: 1, 2, 3"):
        make_scenario(scenario, {option: [0]}).draw(partition)


@pytest.mark.parametrize("asked", ["ben", 1, "1"])
def test_people_go_by_name_or_where_no_name_is_a_number_by_number(asked):
    partition = named(("anna", "ben", "carla"))
    split = make_scenario("identity", {"people": [asked]}).draw(partition)
    assert set(partition.train.labels[split.forget]) == {1}
    with pytest.raises(UsageError, match=r"There is no person 'bern'\. Did you mean 'ben'"):
        make_scenario("identity", {"people": ["bern"]}).draw(partition)


def test_somebody_of_another_part_is_named():
    train = toy_set(60, 0, people=2)
    other = toy_set(20, 1, people=1)
    names = ("anna", "ben", "carla")
    parts = [
        ImageSet(images.images, images.labels, images.classes, who, people=names)
        for images, who in ((train, train.identities), (other, other.identities + 2), (other, other.identities + 2))
    ]
    with pytest.raises(UsageError, match="'carla' is not in the training set; the 2 people who are: anna, ben"):
        make_scenario("identity", {"people": ["carla"]}).draw(Partition("toy", *parts, None, CARD))
