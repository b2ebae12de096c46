import pathlib, re
def edit(path, *pairs):
    p = pathlib.Path(path); s = p.read_text()
    for a, b in pairs:
        assert s.count(a) == 1, (path, s.count(a), a)
        s = s.replace(a, b)
    p.write_text(s)
edit("cli/show/networks.py",
('lines["not recorded"] = with_flags(result.not_prunable)','lines["not recorded"] = f"{result.not_prunable} (--prune names more)"'),
('lines["not prunable"] = with_flags(result.not_prunable)','lines["not prunable"] = f"{result.not_prunable} (--prune names more)"'),
('''    if result.frozen or result.kept_dense:
        others =''','''    if result.frozen or result.kept_dense or result.unmeasured:
        others ='''),
('"other" if result.kept_dense else "trained"','"other" if result.kept_dense or result.unmeasured else "trained"'),
)
edit("causalprune/commands/_network.py",
('''    return "" if rest is None else f"{rest}; `prune` names more"
''','''    return "" if rest is None else f"{rest}"
'''))
edit("causalprune/commands/apply_mask/layers.py",
('"""The sparsity of this iteration, None for a pattern and the rule γ = 0; and the part of the final sparsity that it is."""',
'"""The sparsity of this iteration, None for a pattern or the rule γ = 0; and the part of the final one that it is."""'))
edit("causalprune/commands/record/command.py",
('''                return output.publish(_result(output, reader, finished.metrics.get("not_prunable", ""), already_done=True))
''','''                rest = finished.metrics.get("not_prunable", "")
                return output.publish(_result(output, reader, rest, already_done=True))
'''),
('''def _result(output: CheckpointOutput, reader: RecordingReader, rest: str, *, already_done: bool = False) -> RecordResult:
''','''def _result(
    output: CheckpointOutput, reader: RecordingReader, rest: str, *, already_done: bool = False
) -> RecordResult:
'''))
edit("causalprune/config/layers.py",
('''        "Instead of --sparsity: of each M consecutive weights of a filter or neuron keep the N that the criterion ranks "
        "highest, such as 2:4.",
''','''        "Instead of --sparsity: keep the N that the criterion ranks highest of each M consecutive weights of a filter "
        "or neuron, such as 2:4.",
'''))
