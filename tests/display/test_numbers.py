"""Numbers with their nouns."""

from retinanet.display.numbers import amount, epochs_text


def test_one_has_no_plural() -> None:
    assert [amount(1, "box"), amount(1200, "box"), amount(0, "image")] == ["1 box", "1,200 boxes", "0 images"]
    shown = [epochs_text(value) for value in (1.0, 0.9999, 2 / 3, 12.0)]
    assert shown == ["1 epoch", "1 epoch", "0.667 epochs", "12 epochs"]
