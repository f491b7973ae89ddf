"""pyinfra's side: reads nodes and changes nodes. It decides nothing; that is for `userns`."""
