"""What lies in deploy/cluster names only settings, addresses and values that there are."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from filestored.quantities import parse_duration
from filestored.settings import Settings, describe_all, load
from tests.conftest import require_program
from tests.deploy.proxies import DEPLOY
from tests.dockerfile import instructions

ROOT = DEPLOY.parent
CLUSTER = DEPLOY / "cluster"
VARIABLES = {setting.variable for setting in describe_all()}
IMAGE = dict(instructions((ROOT / "Dockerfile").read_text()))
"""What the image's last stage says, by the words of its instructions."""

OF_OBSTORE = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    return loaded


def kubernetes() -> dict[str, list[dict[str, Any]]]:
    """Return the objects by their kinds."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for each in yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text()):
        kinds.setdefault(each["kind"], []).append(each)
    return kinds


def settings_of(env: dict[str, str]) -> Settings:
    """Read an environment as a daemon would, and require that it knows all of it."""
    assert {name for name in env if name not in OF_OBSTORE} <= VARIABLES
    assert set(env) >= OF_OBSTORE
    filled = {name: re.sub(r"\$\{\w+:\?[^}]*\}|\$\(POD_IP\)", "127.0.0.1", value) for name, value in env.items()}
    loaded = load({}, filled)
    assert not loaded.warnings
    assert loaded.settings.bucket is not None
    assert (loaded.settings.catalogue or "").startswith("postgresql://")
    return loaded.settings


def seconds(text: str) -> float:
    return parse_duration(text)


def test_compose_runs_two_daemons_with_settings_that_there_are() -> None:
    services = compose()["services"]
    daemons = [service for service in services.values() if service["image"] == "filestored:latest"]
    assert len(daemons) == 2
    assert len({service["volumes"][0] for service in daemons}) == 2
    for service in daemons:
        settings = settings_of(service["environment"])
        (volume,) = service["volumes"]
        assert settings.spool.is_relative_to(IMAGE["VOLUME"])
        assert volume.endswith(f":{IMAGE['VOLUME']}")
        assert settings.bucket_endpoint == "http://s3:3900"
        assert seconds(service["stop_grace_period"]) >= settings.stop_delay + 60
        proxy = services["proxy"]["networks"]["inside"]["ipv4_address"]
        assert [str(network) for network in settings.trusted_proxy] == [f"{proxy}/32"]
        assert service["healthcheck"]["test"][1:] == json.loads(IMAGE["HEALTHCHECK"].partition("CMD")[2])


def test_compose_names_nothing_that_is_not_there() -> None:
    told = compose()
    volumes, networks = set(told["volumes"]), set(told["networks"])
    for service in told["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in volumes or (CLUSTER / source).is_file(), volume
        assert set(service["networks"]) <= networks
        assert set(service.get("depends_on", {})) <= set(told["services"])
    used = set(re.findall(r"\$\{(\w+)", (CLUSTER / "compose.yaml").read_text()))
    assert used == set(re.findall(r"^(\w+)=", (CLUSTER / "README.md").read_text(), re.MULTILINE))


def test_the_proxies_know_the_daemons_where_compose_puts_them() -> None:
    services = compose()["services"]
    daemons = {name: each for name, each in services.items() if each["image"] == "filestored:latest"}
    port = settings_of(daemons["one"]["environment"]).port
    addresses = {each["networks"]["inside"]["ipv4_address"] for each in daemons.values()}
    (network,) = compose()["networks"]["inside"]["ipam"]["config"]
    for address in {*addresses, services["proxy"]["networks"]["inside"]["ipv4_address"]}:
        assert ip_address(address) in ip_network(network["subnet"])
        # what is given out to others
        assert ip_address(address) not in ip_network(network["ip_range"])
    # names would be looked up at its start only
    servers = re.findall(r"^ +server (\S+) ", (CLUSTER / "nginx.conf").read_text(), re.MULTILINE)
    assert sorted(servers) == sorted(f"{address}:{port}" for address in addresses)
    assert set(services["proxy"]["depends_on"]) == set(daemons)
    (line,) = re.findall(r"^\treverse_proxy (.*) {$", (CLUSTER / "Caddyfile").read_text(), re.MULTILINE)
    assert line.split() == [f"{name}:{port}" for name in daemons]


def test_there_is_one_image_and_the_cluster_runs_it_as_it_is() -> None:
    assert not list(DEPLOY.rglob("*Dockerfile*"))
    daemons = [each for each in compose()["services"].values() if each["image"].startswith("filestored")]
    (stateful,) = kubernetes()["StatefulSet"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    assert {container["image"], *(each["image"] for each in daemons)} == {"filestored:latest"}
    for daemon in daemons:
        # an engine would take what is said of either instead of what the image says
        assert not {"command", "entrypoint", "user", "working_dir"} & daemon.keys()
        assert (CLUSTER / daemon["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    assert container["args"] == json.loads(IMAGE["CMD"])
    assert not {"command", "workingDir"} & container.keys()


def test_the_cluster_takes_every_right_away_that_is_not_needed() -> None:
    alone = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["filestored"]
    for name in ("one", "two"):
        daemon = compose()["services"][name]
        for key in ("read_only", "tmpfs", "cap_drop", "security_opt", "pids_limit", "ulimits"):
            assert daemon[key] == alone[key], key
    (stateful,) = kubernetes()["StatefulSet"]
    pod = stateful["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    said = pod["securityContext"]
    assert said["runAsNonRoot"] is True
    assert f"{said['runAsUser']}:{said['runAsGroup']}" == IMAGE["USER"]
    # the volume belongs to root otherwise
    assert said["fsGroup"] == said["runAsGroup"]
    (container,) = pod["containers"]
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == wanted
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_what_the_image_says_of_a_folder_is_not_in_the_way_of_a_bucket() -> None:
    of_image = {name: value for name, _, value in (word.partition("=") for word in shlex.split(IMAGE["ENV"]))}
    own = {name: value for name, value in of_image.items() if name.startswith("FILESTORED_")}
    assert own
    assert load({}, own).settings.bucket is None
    (config,), (secret,) = kubernetes()["ConfigMap"], kubernetes()["Secret"]
    for told in (compose()["services"]["one"]["environment"], config["data"] | secret["stringData"]):
        settings = settings_of(own | told)
        assert settings.bucket is not None
        assert settings.spool.is_relative_to(IMAGE["VOLUME"])


def test_the_engine_has_the_bucket_and_the_region_that_the_daemons_use() -> None:
    services = compose()["services"]
    settings = settings_of(services["one"]["environment"])
    engine = services["s3"]["environment"]
    assert settings.bucket is not None
    assert engine["GARAGE_DEFAULT_BUCKET"] == settings.bucket.bucket
    assert engine["GARAGE_DEFAULT_ACCESS_KEY"] == services["one"]["environment"]["AWS_ACCESS_KEY_ID"]
    assert f's3_region = "{settings.bucket_region}"' in (CLUSTER / "garage.toml").read_text()


def test_the_kubernetes_example_uses_settings_that_there_are() -> None:
    kinds = kubernetes()
    (stateful,) = kinds["StatefulSet"]
    pod = stateful["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {**kinds["ConfigMap"][0]["data"], **kinds["Secret"][0]["stringData"]}
    env |= {each["name"]: each["value"] for each in container["env"] if "value" in each}
    settings = settings_of(env)
    assert pod["terminationGracePeriodSeconds"] >= settings.stop_delay + 60
    (port,) = container["ports"]
    assert port["containerPort"] == settings.port
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.spool.is_relative_to(mounts["spool"])
    assert {claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]} == {"spool"}
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    # what takes the pod out of the balance must be quicker than what ends it
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < settings.stop_delay


def test_the_kubernetes_objects_find_each_other() -> None:
    kinds = kubernetes()
    (stateful,) = kinds["StatefulSet"]
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    selectors = [stateful["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in kinds["Service"]]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in kinds["PodDisruptionBudget"]]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in kinds["NetworkPolicy"]]
    assert all(selector == labels for selector in selectors)
    assert stateful["spec"]["serviceName"] in {service["metadata"]["name"] for service in kinds["Service"]}
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    (ingress,) = kinds["Ingress"]
    (rule,) = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    (path,) = rule["http"]["paths"]
    ports = {service["metadata"]["name"]: service["spec"]["ports"] for service in kinds["Service"]}
    wanted = path["backend"]["service"]
    assert wanted["port"]["name"] in {port["name"] for port in ports[wanted["name"]]}
    named = {next(iter(source.values()))["name"] for source in container["envFrom"]}
    assert named == {kinds["ConfigMap"][0]["metadata"]["name"], kinds["Secret"][0]["metadata"]["name"]}


def test_on_kubernetes_nobody_else_is_believed_and_large_uploads_come_through() -> None:
    kinds = kubernetes()
    (policy,), (stateful,) = kinds["NetworkPolicy"], kinds["StatefulSet"]
    # all pods are taken for a proxy: so none gets in but the proxy's and the daemons' own
    (rule,) = policy["spec"]["ingress"]
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert [next(iter(each)) for each in rule["from"]] == ["namespaceSelector", "podSelector"]
    assert rule["from"][1]["podSelector"]["matchLabels"] == labels
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    assert [each["port"] for each in rule["ports"]] == [each["name"] for each in container["ports"]]
    notes = kinds["Ingress"][0]["metadata"]["annotations"]
    said = {name.partition("/")[2]: value for name, value in notes.items()}
    assert said["proxy-body-size"] == "0"
    assert said["proxy-request-buffering"] == "off"
    assert container["imagePullPolicy"] == "IfNotPresent"


def test_daemons_wait_for_the_bucket_itself() -> None:
    services = compose()["services"]
    assert services["one"]["depends_on"]["s3"] == {"condition": "service_healthy"}
    command = services["s3"]["command"][0]
    bucket = services["s3"]["environment"]["GARAGE_DEFAULT_BUCKET"]
    assert services["s3"]["healthcheck"]["test"] == ["CMD", command, "bucket", "info", bucket]


def unknown_lines(path: Path) -> Iterator[str]:
    """Give what a text names as a setting of ours and is none."""
    text = path.read_text()
    flags = {setting.flag for setting in describe_all()}
    yield from set(re.findall(r"FILESTORED_[A-Z_]+", text)) - VARIABLES
    yield from {flag for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text) if flag not in flags}


@pytest.mark.parametrize("path", [*sorted(CLUSTER.glob("*.conf")), CLUSTER / "Caddyfile", DEPLOY / "nginx-accel.conf"])
def test_comments_name_flags_that_there_are(path: Path) -> None:
    assert not list(unknown_lines(path))


def test_the_caddyfile_is_written_as_caddy_writes_it() -> None:
    program = require_program("caddy")
    formatted = subprocess.run([program, "fmt", CLUSTER / "Caddyfile"], capture_output=True, text=True)
    assert formatted.stdout == (CLUSTER / "Caddyfile").read_text()
