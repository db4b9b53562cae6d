"""The server under test: a process on ports of its own choice, with a data directory of its own."""

import asyncio
import json
import signal

from client.tokens import Signer

# By which names the checks ask for a server: what its configuration says beside the defaults.
CONFIGURATIONS = {
    "plain": '[sessions]\nnode_hints = ["other.example:4433", "third.example:4433"]\n',
    "small": "[sessions]\ninbox_entries_max = 40\n",
    "impatient": "[sessions]\nslow_consumer_s = 1\n[tokens]\nresume_valid_for_s = 1\n",
    "rated": "[limits]\nsends_per_s = 2\nsends_burst = 3\n",
    "choosy": "[limits]\nrecipient_sends_per_s = 1\nrecipient_sends_burst = 3\n",
    "wary": "[sessions]\nretry_above_half_open = 0\n",
    "many-keys": '[tokens]\njwks = "keys.json"\n',
    "crowded": "[limits]\nsessions_per_s = 1\nsessions_burst = 2\nunlimited = []\n",
}


class Server:
    def __init__(self, binary, folder, configuration, engine, keys=0):
        self.binary = binary
        self.folder = folder
        self.data = folder / "data"
        self.engine = engine
        folder.mkdir()
        self.file = folder / "roadstead.toml"
        self.signers = [Signer.new(f"key {n}") for n in range(keys)]
        known = folder / "keys.json"
        known.write_text(json.dumps({"keys": [signer.public() for signer in self.signers]}))
        self.file.write_text(configuration.replace("keys.json", str(known)))
        self.process = None
        self.address = ("127.0.0.1", 0)
        self.signer = None

    async def start(self):
        """Starts it; again on the port that it had."""
        options = ["--config", self.file, "--data", self.data, "--admin", "127.0.0.1:0", "--shards", "2"]
        options += ["--quic-engine", self.engine, "--listen", f"127.0.0.1:{self.address[1]}"]
        log = (self.folder / "log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            self.binary, "serve", *map(str, options), stdout=asyncio.subprocess.PIPE, stderr=log
        )
        log.close()
        try:
            line = (await self.process.stdout.readline()).decode()
            if not line.startswith("roadstead ready"):
                raise RuntimeError(f"the server is not ready: {line!r}, see {self.folder}/log")
        except BaseException:
            await self.stop()
            raise
        said = dict(word.split("=", 1) for word in line.split() if "=" in word)
        host, port = said["listen"].rsplit(":", 1)
        self.address = (host, int(port))
        self.signer = self.signers[0] if self.signers else Signer.of_development(self.data)

    @property
    def certificate(self):
        return self.data / "cert.pem"

    def drain(self):
        self.process.send_signal(signal.SIGTERM)

    async def gone(self):
        return await self.process.wait()

    async def farewell(self):
        """Ends it as an operator would; what was wrong with it, or None."""
        if self.process.returncode is None:
            self.drain()
        code = await self.gone()
        log = (self.folder / "log").read_text(errors="replace")
        bad = next((line for line in log.splitlines() if "panicked" in line or "ERROR" in line), None)
        if code == 0 and bad is None:
            return None
        return f"the server {self.folder.name} ended with {code}; of its log: {bad}"

    async def stop(self):
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
