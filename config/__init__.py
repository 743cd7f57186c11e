"""The flags of the commands, their defaults, and how a command ends. It builds nothing."""
