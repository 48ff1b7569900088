"""Other runners, to be measured beside ours. Their sources are not here: the user names checkouts of them."""
