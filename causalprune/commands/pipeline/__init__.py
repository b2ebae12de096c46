"""Parts of ``run``: where its dense network may come from, and what stays of its recordings."""
