"""Names of exchanges and partitioners, which settings, registries and the command line repeat."""

import pytest

from rddals.config import EXCHANGE_NAMES
from rddals.exchange import EXCHANGES, HalfStepSizes, bytes_moved
from rddals.rdds.placement import PARTITIONERS


def test_exchanges_have_one_list_of_names():
    assert set(EXCHANGE_NAMES) == {"auto", *EXCHANGES}
    assert set(bytes_moved(HalfStepSizes(1, 1, 1, 1, 1))) == set(EXCHANGES)


def test_options_offer_all_names():
    pytest.importorskip("typer")
    from rddals.cli import parameters

    assert tuple(each.value for each in parameters.Exchange) == EXCHANGE_NAMES
    assert tuple(each.value for each in parameters.Partitioner) == PARTITIONERS
