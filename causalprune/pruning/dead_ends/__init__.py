"""Dead ends: kept weights that cause nothing, because every path through them is cut.

A weight whose unit has lost all of its inputs, or all of its outputs, causes nothing that its bias couldn't, whatever
its score was in the whole network. The more is pruned, the more weights are left like that. Vysogorets and Kempe, arXiv
2107.02306, call the sparsity that counts them as pruned the *effective* one.
"""
