"""Names of exchanges and partitioners, which settings, registries and the command line repeat."""

from typing import get_args

import pytest

from rddals.config import Exchange
from rddals.exchange import EXCHANGES, HalfStepSizes, bytes_moved
from rddals.rdds.placement import PARTITIONERS


def test_exchanges_have_one_list_of_names():
    assert set(get_args(Exchange)) == {"auto", *EXCHANGES}
    assert set(bytes_moved(HalfStepSizes(1, 1, 1, 1, 1))) == set(EXCHANGES)


def test_options_offer_all_names():
    pytest.importorskip("typer")
    from rddals.cli import parameters

    assert get_args(parameters.Exchange) == get_args(Exchange)
    assert get_args(parameters.Partitioner) == PARTITIONERS
