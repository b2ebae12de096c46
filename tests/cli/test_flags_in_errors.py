"""The library names parameters; the command line says which flag sets them, and leaves other words alone."""

from causalprune_cli.logs import print_error


def test_a_parameter_is_named_by_its_flag(capsys):
    print_error("`data_root`: expected a folder, found `data root` and `weight`; see `nesterov`", 2)
    line = "causalprune: --data-root: expected a folder, found `data root` and `weight`; see --nesterov\n"
    assert capsys.readouterr().err == line
