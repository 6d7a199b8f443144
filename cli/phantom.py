"""`lesionary phantom`: made-up CT data, written as the real thing would be."""

import typer

app = typer.Typer(help="Make up CT data and write it as the real thing would be.", no_args_is_help=True)
