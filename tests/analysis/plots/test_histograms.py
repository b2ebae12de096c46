"""Pictures of a sweep: what a legend says of what can't be drawn."""

from causalprune.analysis.plots import figures
from causalprune.analysis.plots.histograms import plot_density


def test_the_legend_says_whose_spectrum_is_missing(tmp_path, monkeypatch):
    said = []

    def save(drawing, path):
        said.extend(text.get_text() for text in drawing.axes[0].get_legend().get_texts())
        assert path == tmp_path / "density.png"

    monkeypatch.setattr(figures, "save", save)
    whole = {"dimension": 900, "density_at": [0.0, 1.0, 2.0], "density": [1.0, 0.5, 0.1]}
    small = {"dimension": 57, "density_at": [], "density": []}
    spectra = [("not pruned", "#B4B4B4", whole), ("gamma", "#0072B2", small)]
    plot_density(spectra, "Hessian spectrum, 90 % pruned", tmp_path / "density.png")
    assert said == ["not pruned", "gamma: none of 57 parameters"]
