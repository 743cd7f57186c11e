"""Published archives of the datasets: what they are, downloaded, checked and unpacked. The command is prepare.py."""
