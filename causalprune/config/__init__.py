"""The configuration of every command: frozen, self-validating, one field per option, one module per command.

Field order is the order in the help. Nothing here imports PyTorch, so that ``--help`` and ``info`` answer at once.
"""
