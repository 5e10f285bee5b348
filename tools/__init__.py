"""What makes parts of the documentation from the real program: `make tour`, `make pictures`, `make figures`."""
