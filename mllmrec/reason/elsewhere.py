"""The open requests of a stage as a batch file, and the results of one taken into the cache.

For `vllm run-batch` and paid batch interfaces: write the file, have it answered, read the results, then run the
stage, which finds its answers in the cache. What is still missing then is asked as ever.
"""

from __future__ import annotations

from pathlib import Path

from mllmrec.config import Config, DescribeConfig, ProfileConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError
from mllmrec.reason import describe, profile
from mllmrec.reason.batches import read_results, write_batch
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.chat import ChatRequest
from mllmrec.reason.chat_describer import ChatDescriber
from mllmrec.reason.chat_profiler import ChatProfiler
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.handover import open_requests, take_in
from mllmrec.reason.select import Engines, server_config


class Elsewhere:
    """A stage whose requests are answered outside of this process.

    Args:
        dataset: the catalogue and its histories.
        config: of the whole run; the stage's engine must be "openai".
        cache: of generations.
        descriptions: None for the describe stage; what it made, for the profile stage.

    Raises:
        ConfigError: the engine is another, or profiles are not asked of it.
    """

    def __init__(
        self, dataset: Dataset, config: Config, cache: GenerationCache, descriptions: Descriptions | None
    ) -> None:
        self._dataset, self._config, self._cache = dataset, config, cache
        stage: DescribeConfig | ProfileConfig = config.describe if descriptions is None else config.profile
        if stage.engine != "openai":
            raise ConfigError(f'batch files are for engine = "openai"; the stage has "{stage.engine}"')
        self._server = server_config(config, stage, stage.model or config.describe.model)
        engines = Engines(config, dataset)
        if descriptions is None:
            self._label, self._engine, self._asked = describe.LABEL, *self._describe(engines)
        else:
            self._label, self._engine, self._asked = profile.LABEL, *self._profile(engines, descriptions)

    def _describe(self, engines: Engines) -> tuple[str, dict[str, ChatRequest]]:
        engine = engines.describer
        assert isinstance(engine, ChatDescriber)
        items = [item for item in catalogue(self._dataset, images=self._config.describe.images) if item.images]
        keyed = zip(describe.keys_of(engine, items), map(engine.request, items), strict=True)
        return engine.fingerprint, open_requests(keyed, self._cache)

    def _profile(self, engines: Engines, descriptions: Descriptions) -> tuple[str, dict[str, ChatRequest]]:
        engine = engines.profiler(descriptions)
        if not isinstance(engine, ChatProfiler):
            raise ConfigError('batch files hold questions for texts; set profile.kind to "text"')
        stage = self._config.profile
        histories = self._dataset.histories(stage.history)
        told = [history for history in profile.tell(histories, descriptions, stage.max_items) if history]
        keyed = zip(profile.keys_of(engine, told), map(engine.request, told), strict=True)
        return engine.fingerprint, open_requests(keyed, self._cache)

    def write(self, path: Path) -> int:
        """Write what the cache cannot answer; the number of requests."""
        return write_batch(self._asked, path, self._server)

    def read(self, path: Path) -> str:
        """Take the results of a batch into the cache; one line that counts them."""
        results = read_results(path, self._asked)
        take_in(results.replies, self._asked, self._cache, ask=self._label, engine=self._engine)
        return results.summary
