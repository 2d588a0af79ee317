"""What a server counts, by /metrics."""


def metric(client, name, **labels):
    """The value of a metric with these labels, or the sum of all that have them; 0 when there is none."""
    answer = client.get("/metrics")
    assert answer.status == 200, answer
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in answer.body.decode().splitlines() if line.startswith((name + " ", name + "{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))
