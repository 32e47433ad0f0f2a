"""The page of an account in a real browser."""

import pytest

pytest.importorskip("bokeh", reason="needs the extra report")

from equity_world import World, portfolio_of

pytestmark = pytest.mark.slow
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def account_file(tmp_path_factory):
    world = World(5, minutes=200 * 1440, step=240, leverage=2.0, activity=0.05, wildness=0.01)
    result = portfolio_of(world, NASTY, refusals={"cash": 3})
    return result, result.report(tmp_path_factory.mktemp("account") / "account.html")


def test_the_page_shows_curve_months_and_trades(open_page, look, account_file):
    result, path = account_file
    page = open_page(path)
    assert page.title() == f"Account main{NASTY}"
    assert page.locator("#equity canvas").count() >= 1
    assert page.locator("#months tbody tr").count() == 1
    assert page.locator("#months tbody td").count() == 13
    table = page.locator("#trades")
    assert table.locator(".status").inner_text() == (
        f"1 to {len(result.trades)} of {len(result.trades)}"
    )
    table.get_by_role("button", name="Profit").click()
    cells = table.locator("tbody tr").first.locator("td").all_inner_texts()
    assert float(cells[10].replace(",", "")) == pytest.approx(
        result.table()["profit"].min(), abs=0.005
    )
    page.get_by_role("button", name="Dark").click()
    look(page, "account-dark", full_page=True)
    page.get_by_role("button", name="Light").click()
    look(page, "account", full_page=True)


def test_it_fits_a_phone(open_page, look, account_file):
    page = open_page(account_file[1], viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    look(page, "account-phone")
