"""Fine-tuning goes on from the common model before it is measured, as worked out by hand, and leaves no trace."""

from tests.support.quadratics import fleet_of


def test_three_rounds_are_fedavgs_and_what_is_measured_between_them_changes_nothing() -> None:
    # Two further steps of lr = 1/2 leave a quarter of the distance, and a sixteenth of the loss (w - c_k)^2 / 2:
    #   w = 5:    25/2, 1/2  ->  25/32, 1/32;    w = 4:  8, 0  ->  1/2, 0;    w = 7/2:  49/8, 1/8  ->  49/128, 1/128
    fleet = fleet_of("finetune(epochs=2)")
    by_hand = [(5, (25 / 2, 1 / 2)), (4, (8, 0)), (7 / 2, (49 / 8, 1 / 8))]
    for w, losses in by_hand:
        assert fleet.round() == w
        for edge, loss in zip("ab", losses, strict=True):
            assert fleet.measured(edge).metrics == {"loss": loss, "personal_loss": loss / 16}
            assert fleet.memories[edge].now == {}


def test_who_measures_on_test_data_alone_has_no_model_of_its_own() -> None:
    fleet = fleet_of("finetune")
    measured = fleet.trainers["a"].evaluate(fleet.sent, fleet.examples["a"], plan=fleet.plan)
    assert measured.metrics == {"loss": 49 / 2}
