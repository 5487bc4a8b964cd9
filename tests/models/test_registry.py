"""The table of systems: names, parameter counts, what a run needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trine import models
from trine.models.registry import register

PARAMETERS = {
    "char-lstm": 98_561,
    "char-rnn": 36_353,
    "cnn-003": 4198,
    "dft-net": 1024,
    "dnn-hmm": 4742,
    "elman": 321,
    "encoder-decoder": 88_971,
    "fourier-net": 37,
    "gru-memory": 2936,
    "integral-net": 4,
    "lenet5": 61_706,
    "little-demon": 69,
    "logistic-regression": 5,
    "lstm-memory": 3848,
    "mlp": 203_530,
    "rnn": 1112,
    "sequence-classifier": 3654,
    "taylor-net": 7,
    "nnlm": 266_172,
    "text-cnn": 101_625,
    "two-digit": 47,
    "word-embedding": 113_884,
    "xor": 9,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters(name: str, count: int) -> None:
    assert models.get(name).parameters == count


def test_frozen_parameters_do_not_count() -> None:
    assert models.get("hand").parameters == 8


ASKED_FOR = {
    "the mathematics": """
        role-of-w-and-b hadamard linear-approximation unit-length-step epoch five-layer""",
    "worked examples": """
        hand xor signal-flow single-neuron two-digit little-demon cnn-003 lstm linear-regression
        logistic-regression vanishing-gradient""",
    "threshold units and memories": """
        mcculloch-pitts hebb perceptron adaline mlp hopfield bam""",
    "sequences": """
        elman rnn lstm-memory gru-memory char-lstm char-rnn sequence-classifier text-cnn
        encoder-decoder word-embedding nnlm dnn-hmm""",
    "images": """
        lenet5 lenet5-1998 alexnet googlenet alexnet-onetower googlenet-bn alexnet-small
        googlenet-small segmentation faster-rcnn-small faster-rcnn""",
    "codes and machines": """
        autoencoder-linear autoencoder stacked-autoencoder deconv-autoencoder pca ica vae gan
        boltzmann rbm dbn dbm""",
    "functions": "taylor-net integral-net fourier-net dft-net",
}
"""Every name that the project was asked for; a system may be added, none may go."""


@pytest.mark.parametrize("part", ASKED_FOR)
def test_no_system_is_missing(part: str) -> None:
    assert set(ASKED_FOR[part].split()) <= set(models.names())


def test_every_system_has_something_to_reach() -> None:
    """A run's line in the table has a reference: a bound, what the model shows, or an example."""
    for name in models.names():
        system = models.get(name)
        assert system.expected or system.shows or system.report or not system.trainable, name


def test_every_system_says_what_it_is() -> None:
    for name in models.names():
        system = models.get(name)
        assert system.summary
        assert system.source
        assert 1700 < system.year < 2100
        if system.trainable:
            assert system.data is not None
            assert system.loss is not None
        else:
            assert system.explain is not None
            assert system.parameters == 0


def test_unknown_name_proposes_the_closest() -> None:
    with pytest.raises(ValueError, match=r"\[models\].*'lenet'.*Did you mean 'lenet5'"):
        models.get("lenet")


def test_explaining_a_net_with_a_rule_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[explain\].*'hopfield', which learns by a rule"):
        models.explain("hopfield")


def test_splits_of_an_explained_system_are_refused() -> None:
    with pytest.raises(ValueError, match="only explained"):
        models.get("single-neuron").splits()


def test_half_described_systems_are_refused() -> None:
    about = {"family": "f", "year": 2000, "source": "s", "summary": "s"}
    with pytest.raises(ValueError, match="new name"):
        register(name="hand", build=lambda: None, **about)
    with pytest.raises(ValueError, match="build or explain"):
        register(name="nothing", **about)
    with pytest.raises(ValueError, match="data and loss"):
        register(name="half", build=lambda: None, **about)
    assert "half" not in models.names()


def test_check_names_what_falls_short() -> None:
    mlp = models.get("mlp")
    assert mlp.check({"test_accuracy": 0.99}) == []
    assert mlp.check({"test_accuracy": 0.5}) == ["mlp: test_accuracy 0.5 is below 0.97"]
    assert "reports no test_accuracy" in mlp.check({})[0]
    assert mlp.check({"test_accuracy": float("nan")}) != []
    assert mlp.check({"test_accuracy": 0.5, "data": "digits", "epochs": mlp.epochs}) != []


def test_check_asks_nothing_of_other_data_or_a_shorter_run() -> None:
    mlp = models.get("mlp")
    assert mlp.check({"test_accuracy": 0.5, "data": "fashion-mnist"}) == []
    assert mlp.check({"test_accuracy": 0.5, "data": "digits", "epochs": 1}) == []


def test_importing_the_package_loads_no_family() -> None:
    code = (
        "import sys, trine.models;"
        "print([m for m in sys.modules if m.startswith(('trine.nn', 'trine.models.lenet'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
