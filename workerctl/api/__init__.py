"""What `from workerctl import Client, AsyncClient, CommandExecutor` is made of."""
