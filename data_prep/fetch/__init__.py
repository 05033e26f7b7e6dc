"""Pictures from the open web: checked addresses, bounded time and bytes, polite to hosts, opt-outs honoured."""
