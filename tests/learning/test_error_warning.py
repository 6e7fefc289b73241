"""An error that makes a student useless is said in one line, with the remedy."""

from __future__ import annotations

from dmts_ipi.learning.error_warning import ALL, error_warning, warning_of_figures


def test_errors_in_order_say_nothing():
    assert error_warning({ALL: (0.02, 1.0), "O": (0.03, 1.2)}, 0.015) == ""
    assert error_warning({ALL: (0.0, 0.0)}) == ""


def test_a_large_part_of_the_force_is_said_for_all_atoms_and_for_the_worst_element():
    line = error_warning({ALL: (0.5, 1.0), "O": (10.0, 1.0), "H": (0.1, 1.0)})
    assert line.startswith("force RMSE 500 meV/A of all atoms is 50 % of")
    assert "of O 1000 %" in line
    assert "label more frames" in line


def test_one_bad_element_is_enough():
    line = error_warning({ALL: (0.1, 1.0), "O": (0.9, 1.0)})
    assert line.startswith("force RMSE 900 meV/A of O is 90 %")


def test_held_out_error_far_above_the_training_error():
    assert "4.0 times that of training frames" in error_warning({ALL: (0.08, 1.0)}, 0.02)
    assert error_warning({ALL: (0.008, 1.0)}, 0.002) == ""


def test_figures_of_evaluate():
    part = {"rmse_eV_per_A": 0.9, "reference_rms_eV_per_A": 1.0}
    figures = {
        "force_rmse_eV_per_A": 0.1, "force_reference_rms_eV_per_A": 1.0, "by_element": {"O": part}
    }  # fmt: skip
    assert "of O is 90 %" in warning_of_figures(figures)
