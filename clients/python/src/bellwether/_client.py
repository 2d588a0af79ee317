"""The connection to a server: the client, and the asynchronous client.

What a request is, how it is sent again and what is made of its answer is the same for both and stands in the
modules that they import. Their methods state it twice on purpose: signatures that editors, ``help()`` and type
checkers read as they are written.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from ._answers import Deployed, Outcome, Scores
from ._events import AsyncEvents, Events
from ._features import AsyncFeatures, Features
from ._http import AsyncTransport, Certificate, Settings, SyncTransport, Verify
from ._models import AsyncModels, Models, deploy_call, list_call
from ._progress import ProgressOption, Reporter
from ._score_batch import score_batch
from ._scoring import Priority, outcome_call, score_call
from ._tables import Kind


class Client:
    """A connection to one server, kept open until :meth:`close`; also a context manager.

    ``timeout`` is in seconds and bounds each request but those that compute training sets or load models.
    ``verify`` is the file of a certificate authority to trust, an SSL context, or ``False``; ``cert`` a file,
    or certificate and key, with which the client proves who it is. What is left out is taken from the
    environment: ``BELLWETHER_SERVER``, ``BELLWETHER_API_KEY``, ``BELLWETHER_CA_FILE``,
    ``BELLWETHER_CLIENT_CERT`` and ``BELLWETHER_CLIENT_KEY``, as the commands take them.

    Requests are tried ``retries`` times more when the server said that it did nothing (429, 503), when it
    could not be reached, and, if sending it twice does no harm, when the connection was lost. Threads may
    share a client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        verify: Verify = True,
        cert: Certificate | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        settings = Settings.of(url, timeout, retries, api_key, verify, cert)
        self._transport = SyncTransport(settings, transport)
        #: What is known of customers and other entities.
        self.features = Features(self._transport)
        #: What happened to them.
        self.events = Events(self._transport)
        #: What is served, and which version of it answers.
        self.models = Models(self._transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.http.close()

    def score(
        self,
        customer_id: str | int,
        *,
        models: str | Sequence[str] | None = None,
        features: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        explain: int | None = None,
        deadline: float | None = None,
        priority: Priority | None = None,
    ) -> Scores:
        """The predictions for a customer.

        ``models`` are names, by default every model that reads the customer's view. ``features`` are used
        instead of the stored ones for this request, ``context`` is what is known of the contact itself,
        ``explain`` how many reasons to give. After ``deadline`` seconds the answer is of no use.
        """
        return self._transport.run(
            score_call(customer_id, models, features, context, explain, deadline, priority)
        )

    def score_many(
        self,
        customer_ids: Iterable[str | int],
        *,
        models: str | Sequence[str] | None = None,
        explain: int | None = None,
        concurrency: int = 8,
        progress: ProgressOption = None,
    ) -> list[Scores]:
        """The predictions for many customers, in their order, by ``concurrency`` requests at a time.

        The requests say that they may wait for a quiet moment. The first that fails ends it.
        """
        ids = list(customer_ids)
        scored: list[Scores] = []

        def one(customer_id: str | int) -> Scores:
            return self.score(customer_id, models=models, explain=explain, priority="batch")

        with Reporter(progress) as reporter, ThreadPoolExecutor(max(1, concurrency)) as pool:
            try:
                for answer in pool.map(one, ids):
                    scored.append(answer)
                    reporter.report("score", len(scored), len(ids))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return scored

    def score_batch(
        self,
        table: Any,
        *,
        models: str | Sequence[str] | None = None,
        explain: int | None = None,
        record: bool = True,
        returns: Kind = "arrow",
        progress: ProgressOption = None,
    ) -> Any:
        """The predictions for the customers of a table, a row for each of its rows, in their order.

        ``table`` is one of pandas, Polars or Arrow. It has the column ``customer_id``, and perhaps columns
        named like features, which are used instead of what is stored: null says that a value is missing. With
        ``record=False`` nothing is left in the ledger, for what-ifs.

        The answer is an Arrow table, or one of the kind ``returns``: ``customer_id``, ``prediction_id``, of each
        model ``<model>_score``, ``<model>_label``, ``<model>_version`` and, with ``explain``,
        ``<model>_reasons`` as JSON; and ``error``, which says why a row has no scores.
        """
        return self._transport.follow(score_batch(table, models, explain, record, returns, progress))

    def outcome(
        self,
        outcome: str,
        *,
        prediction_id: str | None = None,
        customer_id: str | int | None = None,
        value: float | None = None,
        occurred_at: datetime.datetime | str | None = None,
        outcome_id: str | None = None,
    ) -> Outcome:
        """Reports what happened after a prediction, or to a customer; it is on disk when this returns.

        ``outcome_id`` makes reporting it again harmless; choose it when a program that failed will do so.
        """
        return self._transport.run(
            outcome_call(outcome, prediction_id, customer_id, value, occurred_at, outcome_id)
        )

    def deploy(
        self,
        name: str,
        estimator: Any,
        sample: Any,
        *,
        promote: bool = False,
        reason: str | None = None,
        progress: ProgressOption = None,
        **options: Any,
    ) -> Deployed:
        """Serves a fitted estimator of scikit-learn, LightGBM or XGBoost.

        ``sample`` are some rows as the estimator takes them, with the columns named like the features. The
        estimator is converted to ONNX, has to say the same as before on those rows, and is uploaded with its
        own predictions, which the server has to reproduce too. ``options`` are those of
        :func:`bellwether.convert`; ``promote``, ``reason`` and the answer those of
        :meth:`Models.deploy_bundle`.
        """
        from .export import convert

        with Reporter(progress) as reporter:
            self._transport.run(list_call())
            bundle = convert(estimator, sample, report=reporter.report, **options)
            return self._transport.run(deploy_call(name, bundle.files, promote, reason, reporter.report))


class AsyncClient:
    """:class:`Client` for ``asyncio``: the same methods, to be awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        verify: Verify = True,
        cert: Certificate | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        settings = Settings.of(url, timeout, retries, api_key, verify, cert)
        self._transport = AsyncTransport(settings, transport)
        #: What is known of customers and other entities.
        self.features = AsyncFeatures(self._transport)
        #: What happened to them.
        self.events = AsyncEvents(self._transport)
        #: What is served, and which version of it answers.
        self.models = AsyncModels(self._transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._transport.http.aclose()

    async def score(
        self,
        customer_id: str | int,
        *,
        models: str | Sequence[str] | None = None,
        features: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        explain: int | None = None,
        deadline: float | None = None,
        priority: Priority | None = None,
    ) -> Scores:
        """See :meth:`Client.score`."""
        return await self._transport.run(
            score_call(customer_id, models, features, context, explain, deadline, priority)
        )

    async def score_many(
        self,
        customer_ids: Iterable[str | int],
        *,
        models: str | Sequence[str] | None = None,
        explain: int | None = None,
        concurrency: int = 8,
        progress: ProgressOption = None,
    ) -> list[Scores]:
        """See :meth:`Client.score_many`."""
        ids = list(customer_ids)
        waiting = iter(enumerate(ids))
        scored: dict[int, Scores] = {}

        async def work(reporter: Reporter) -> None:
            for index, customer_id in waiting:
                scored[index] = await self.score(
                    customer_id, models=models, explain=explain, priority="batch"
                )
                reporter.report("score", len(scored), len(ids))

        with Reporter(progress) as reporter:
            workers = [
                asyncio.ensure_future(work(reporter)) for _ in range(min(max(1, concurrency), len(ids)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
        return [scored[index] for index in range(len(ids))]

    async def score_batch(
        self,
        table: Any,
        *,
        models: str | Sequence[str] | None = None,
        explain: int | None = None,
        record: bool = True,
        returns: Kind = "arrow",
        progress: ProgressOption = None,
    ) -> Any:
        """See :meth:`Client.score_batch`."""
        return await self._transport.follow(score_batch(table, models, explain, record, returns, progress))

    async def outcome(
        self,
        outcome: str,
        *,
        prediction_id: str | None = None,
        customer_id: str | int | None = None,
        value: float | None = None,
        occurred_at: datetime.datetime | str | None = None,
        outcome_id: str | None = None,
    ) -> Outcome:
        """See :meth:`Client.outcome`."""
        return await self._transport.run(
            outcome_call(outcome, prediction_id, customer_id, value, occurred_at, outcome_id)
        )

    async def deploy(
        self,
        name: str,
        estimator: Any,
        sample: Any,
        *,
        promote: bool = False,
        reason: str | None = None,
        progress: ProgressOption = None,
        **options: Any,
    ) -> Deployed:
        """See :meth:`Client.deploy`. Converting runs on a thread of its own."""
        from .export import convert

        with Reporter(progress) as reporter:
            await self._transport.run(list_call())
            bundle = await asyncio.to_thread(convert, estimator, sample, report=reporter.report, **options)
            return await self._transport.run(
                deploy_call(name, bundle.files, promote, reason, reporter.report)
            )
