"""The numbers of the paper: its tables as printed, its FLOPs computed again, its runs repeated."""
