"""What openshift/ promises, read from its files: called by tests/packaging/openshift.rs with
the Python of target/venv and the program's path in HEALTHPORT.

Kubernetes' own objects are checked against its schemas. Those of OpenShift and of
the Prometheus operator are in no package: their shape is compared with what is
meant, their rules are run by promtool. There is no Butane binary in a package
registry either: what Butane would read is checked, not what it writes.
"""

import base64
import copy
import gzip
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
BINARY = os.environ["HEALTHPORT"]


def read(path):
    return (ROOT / path).read_text()


def prose(path):
    """The file without line breaks, so that its comments can be searched."""
    return re.sub(r"\s*\n[\s#]*", " ", read(path))


def run(*command):
    """What the command says on both outputs; it must succeed."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    try:
        done = subprocess.run(command, stdout=pipe, stderr=both, text=True, timeout=60)
    except FileNotFoundError:
        package = {"promtool": "prometheus", "systemd-analyze": "systemd"}[command[0]]
        raise AssertionError(f"{command[0]} is missing: apt-get install {package}") from None
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def settings(args):
    """What --check-config says that these arguments mean."""
    lines = run(BINARY, *args, "--check-config").splitlines()
    return dict(line.split(maxsplit=1) for line in lines[: lines.index("")])


MANIFEST = {doc["kind"]: doc for doc in yaml.safe_load_all(read("openshift/daemonset.yaml"))}
DAEMONSET = MANIFEST["DaemonSet"]["spec"]
POD = DAEMONSET["template"]["spec"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
MONITOR, RULES = yaml.safe_load_all(read("openshift/podmonitor.yaml"))
BUTANE = yaml.safe_load(read("openshift/machineconfig.bu"))
(UNIT,) = BUTANE["systemd"]["units"]
# One assignment, whose lines systemd joins.
ROUTER = read("systemd/router.conf").replace("\\\n", "")
ROUTER = shlex.split(re.search(r'^HEALTHPORT_OPTS="(.*)"$', ROUTER, re.M)[1])


class Daemonset(unittest.TestCase):
    def test_the_schemas_accept_it(self):
        kinds = ["Namespace", "ServiceAccount", "RoleBinding", "DaemonSet"]
        self.assertEqual(list(MANIFEST), kinds)
        # OpenShift 4.14 is Kubernetes 1.27; the last is the newest in the package.
        for version in ["1.27", kubernetes_validate.latest_version()]:
            for kind in kinds:
                kubernetes_validate.validate(MANIFEST[kind], version, strict=True)
        for wrong in [{"hostNetwork": "yes"}, {"hostNetwrok": True}]:
            broken = copy.deepcopy(MANIFEST["DaemonSet"])
            broken["spec"]["template"]["spec"].update(wrong)
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(broken, "1.27", strict=True)

    def test_it_has_no_privilege(self):
        self.assertEqual(
            POD["securityContext"],
            {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        )
        self.assertEqual(
            CONTAINER["securityContext"],
            {
                "privileged": False,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        )
        self.assertIs(POD["automountServiceAccountToken"], False)
        self.assertIs(MANIFEST["ServiceAccount"]["automountServiceAccountToken"], False)
        self.assertIs(POD["hostNetwork"], True)
        for absent in ["hostPID", "hostIPC", "volumes", "initContainers"]:
            self.assertNotIn(absent, POD)
        for absent in ["command", "env", "envFrom", "lifecycle", "volumeMounts"]:
            self.assertNotIn(absent, CONTAINER)
        for port in CONTAINER["ports"]:
            # Above what needs a capability, below NodePort.
            self.assertTrue(1024 < port["containerPort"] < 30000, port)

    def test_only_the_constraint_it_needs_is_bound_to_its_account(self):
        binding = MANIFEST["RoleBinding"]
        role = {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:openshift:scc:hostnetwork-v2",
        }
        self.assertEqual(binding["roleRef"], role)
        account = {"kind": "ServiceAccount", "name": "healthport", "namespace": "healthport"}
        self.assertEqual(binding["subjects"], [account])
        self.assertEqual(POD["serviceAccountName"], account["name"])
        for doc in [*MANIFEST.values(), MONITOR, RULES]:
            meta = doc["metadata"]
            namespace = meta["name"] if doc["kind"] == "Namespace" else meta["namespace"]
            self.assertEqual(namespace, account["namespace"], doc["kind"])
        labels = MANIFEST["Namespace"]["metadata"]["labels"]
        self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "privileged")

    def test_it_runs_where_routers_run_one_node_after_the_other(self):
        self.assertEqual(
            DAEMONSET["updateStrategy"],
            {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        )
        self.assertEqual(POD["priorityClassName"], "system-node-critical")
        self.assertEqual(
            POD["nodeSelector"],
            {"kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""},
        )
        roles = [f"node-role.kubernetes.io/{role}" for role in ["infra", "master", "control-plane"]]
        tolerations = [{"key": key, "operator": "Exists"} for key in roles]
        self.assertEqual(POD["tolerations"], tolerations)
        labels = DAEMONSET["template"]["metadata"]["labels"]
        for selector in [DAEMONSET["selector"], MONITOR["spec"]["selector"]]:
            self.assertEqual(selector, {"matchLabels": labels})

    def test_the_program_accepts_its_arguments_and_means_what_router_conf_says(self):
        ours, routers = settings(CONTAINER["args"]), settings(ROUTER)
        self.assertEqual(ours.pop("metrics-listen"), f"0.0.0.0:{PORTS['metrics']}")
        self.assertEqual(ours["listen"], f"0.0.0.0:{PORTS['check']}")
        # What a pod has no use for.
        self.assertEqual(ours.pop("drain-file"), "off")
        del routers["metrics-listen"], routers["drain-file"]
        self.assertEqual(ours, routers)
        # The defaults are the recommendation: what is named differs from them.
        defaults = settings([])
        for arg in CONTAINER["args"]:
            name, value = arg.removeprefix("--").split("=", 1)
            self.assertNotEqual(defaults[name], value, arg)

    def test_a_stopped_process_is_killed_in_the_time_that_the_comment_says(self):
        probe = CONTAINER["livenessProbe"]
        self.assertEqual(probe["httpGet"], {"path": "/livez", "port": "metrics"})
        period, count = probe["periodSeconds"], probe["failureThreshold"]
        killed = period * count + probe["timeoutSeconds"] + POD["terminationGracePeriodSeconds"]
        comments = prose("openshift/daemonset.yaml")
        self.assertIn(f"killed within {killed} s", comments)
        lease = settings(CONTAINER["args"])["max-age"].removesuffix("s")
        self.assertIn(f"by itself after --max-age, here {lease} s", comments)
        self.assertNotIn("readinessProbe", CONTAINER)
        # Less than the exchange may take would call a slow answer a dead process.
        self.assertGreater(probe["timeoutSeconds"], 1)

    def test_image_and_program_have_one_version(self):
        version = run(BINARY, "--version").split()[1]
        self.assertEqual(CONTAINER["image"], f"registry.example.com/healthport:{version}")
        self.assertEqual(CONTAINER["imagePullPolicy"], "IfNotPresent")

    def test_requests_and_limits(self):
        self.assertEqual(
            CONTAINER["resources"],
            {
                "requests": {"cpu": "10m", "memory": "8Mi"},
                "limits": {"cpu": "100m", "memory": "32Mi"},
            },
        )
        self.assertIn("MemoryMax=32M\n", read("systemd/healthport@.service"))


class Monitoring(unittest.TestCase):
    def test_it_scrapes_what_the_pod_serves(self):
        self.assertEqual(MONITOR["apiVersion"], "monitoring.coreos.com/v1")
        self.assertEqual(MONITOR["kind"], "PodMonitor")
        self.assertEqual(list(MONITOR["spec"]), ["selector", "podMetricsEndpoints"])
        (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
        self.assertEqual(list(endpoint), ["port", "path", "interval", "relabelings"])
        self.assertIn(endpoint["port"], PORTS)
        # The paths of the manifests and the names in the rules are the program's.
        address = f"127.{64 + (os.getpid() >> 8 & 63)}.{os.getpid() & 255}.255"
        args = [f"--listen={address}:18898", f"--metrics-listen={address}:18988"]
        args.append(f"--url=http://{address}:1936/")
        program = subprocess.Popen([BINARY, *args], stderr=subprocess.DEVNULL)
        try:
            get(address, CONTAINER["livenessProbe"]["httpGet"]["path"])
            served = get(address, endpoint["path"])
        finally:
            program.kill()
            program.wait()
        rules = RULES["spec"]["groups"][0]["rules"]
        names = {name for rule in rules for name in re.findall(r"\bhealthport_\w+", rule["expr"])}
        self.assertEqual(len(names), 4, names)
        for name in names:
            self.assertRegex(served, rf"(?m)^{name}[ {{]")

    def test_the_alerts_fire_when_they_should_and_only_then(self):
        self.assertEqual(RULES["apiVersion"], "monitoring.coreos.com/v1")
        self.assertEqual(RULES["kind"], "PrometheusRule")
        with tempfile.TemporaryDirectory() as folder:
            rules = Path(folder) / "rules.yaml"
            rules.write_text(yaml.safe_dump(RULES["spec"]))
            cases = shutil.copy(ROOT / "tests/openshift/alerts.yaml", folder)
            self.assertIn("SUCCESS: 3 rules found", run("promtool", "check", "rules", rules))
            run("promtool", "test", "rules", cases)
        tested = {
            case["alertname"]
            for test in yaml.safe_load(read("tests/openshift/alerts.yaml"))["tests"]
            for case in test["alert_rule_test"]
            if case["exp_alerts"]
        }
        self.assertEqual(tested, {rule["alert"] for rule in RULES["spec"]["groups"][0]["rules"]})

    def test_slow_means_what_no_ready_router_is_and_the_timeout_is_not_near(self):
        (slow,) = [
            rule
            for rule in RULES["spec"]["groups"][0]["rules"]
            if rule["alert"] == "HealthportProbeSlow"
        ]
        timeout = float(settings(CONTAINER["args"])["timeout"].removesuffix("s"))
        # A router that is ready was measured to take up to 1.9 s.
        self.assertTrue(1.9 < float(slow["expr"].split(">")[1]) <= timeout * 2 / 3)
        self.assertIn(
            f"the timeout is {timeout:g} s", " ".join(slow["annotations"]["description"].split())
        )


def get(address, path):
    """The body of an answer of 200, from a program that has just been started."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}:18988{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Machineconfig(unittest.TestCase):
    def test_it_has_what_butane_wants(self):
        # "openshift" of 4.14 and later has each of these fields.
        local = {"mode": 0, "contents": {"local": ""}, "path": ""}
        dropin = {"name": "", "contents": ""}
        unit = {"name": "", "enabled": True, "contents_local": "", "dropins": [dropin]}
        self.assertEqual(
            shape(BUTANE),
            shape(
                {
                    "variant": "",
                    "version": "",
                    "metadata": {
                        "name": "",
                        "labels": {"machineconfiguration.openshift.io/role": ""},
                    },
                    "storage": {"files": [local, local, local]},
                    "systemd": {"units": [unit]},
                }
            ),
        )
        self.assertEqual((BUTANE["variant"], BUTANE["version"]), ("openshift", "4.14.0"))
        files = {f["path"]: (f["mode"], f["contents"]["local"]) for f in BUTANE["storage"]["files"]}
        expected = {
            "/usr/local/bin/healthport": (0o755, "target/release/healthport"),
            "/etc/healthport/router.conf": (0o644, "systemd/router.conf"),
            "/etc/sysctl.d/50-healthport.conf": (0o644, "systemd/healthport.sysctl.conf"),
        }
        self.assertEqual(files, expected)
        # Not a copy of the unit: the unit.
        self.assertEqual(UNIT["contents_local"], "systemd/healthport@.service")

    def test_it_fits_into_etcd(self):
        binary = (ROOT / "target/release/healthport").read_bytes()
        packed = len(base64.b64encode(gzip.compress(binary)))
        print(f"\nthe binary in a MachineConfig: {packed} bytes")
        # Of 1.5 MiB, in which the rest of the pool's rendered configuration must
        # have room too.
        self.assertLess(packed, 1_200_000)

    def test_unit_and_drop_in_are_one_that_systemd_accepts(self):
        (dropin,) = UNIT["dropins"]
        # The template's own options file is away; this one must be there.
        self.assertIn("\nEnvironmentFile=-/etc/healthport/%i.conf\n", read(UNIT["contents_local"]))
        self.assertIn("\nEnvironmentFile=/etc/healthport/router.conf\n", dropin["contents"])
        with tempfile.TemporaryDirectory() as folder:
            # systemd-analyze wants the binary to be there.
            unit = Path(folder) / UNIT["name"]
            text = read(UNIT["contents_local"]).replace("/usr/local/bin/healthport", BINARY)
            unit.write_text(text)
            unit.with_name(unit.name + ".d").mkdir()
            added = Path(f"{unit}.d") / dropin["name"]
            added.write_text(dropin["contents"])
            self.assertEqual(run("systemd-analyze", "verify", "--man=no", unit), "")
            added.write_text(dropin["contents"] + "Bogus=1\n")
            self.assertIn("Bogus", run("systemd-analyze", "verify", "--man=no", unit))

    def test_the_node_disruption_policy_covers_all_of_it(self):
        comment = [
            line[4:]
            for line in read("openshift/machineconfig.bu").splitlines()
            if line.startswith("#   ")
        ]
        policy = yaml.safe_load(
            "\n".join(comment[comment.index("apiVersion: operator.openshift.io/v1") :])
        )
        self.assertEqual(
            (policy["kind"], policy["metadata"]["name"]), ("MachineConfiguration", "cluster")
        )
        policy = policy["spec"]["nodeDisruptionPolicy"]
        for file in BUTANE["storage"]["files"]:
            covered = [
                entry
                for entry in policy["files"]
                if (file["path"] + "/").startswith(entry["path"] + "/")
            ]
            self.assertEqual(len(covered), 1, file)
        self.assertEqual([entry["name"] for entry in policy["units"]], [UNIT["name"]])
        restart = [
            {"type": "DaemonReload"},
            {"type": "Restart", "restart": {"serviceName": UNIT["name"]}},
        ]
        sysctl = [{"type": "Restart", "restart": {"serviceName": "systemd-sysctl.service"}}]
        for entry in policy["files"] + policy["units"]:
            is_sysctl = entry.get("path") == "/etc/sysctl.d/50-healthport.conf"
            self.assertEqual(entry["actions"], sysctl if is_sysctl else restart)
        # NodeDisruptionPolicyServiceName of openshift/api, operator/v1.
        self.assertRegex(UNIT["name"], r"^[a-zA-Z0-9:._\\-]+\.service$")


def shape(value):
    """The same with every value replaced by its type."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


class Readme(unittest.TestCase):
    TEXT = read("openshift/README.md")
    COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S))

    def test_the_files_exist(self):
        named = set(re.findall(r"\bopenshift/[\w.]+\w", self.TEXT))
        self.assertEqual(
            named | {"openshift/README.md"},
            {str(path.relative_to(ROOT)) for path in (ROOT / "openshift").iterdir()},
        )

    def test_the_commands_name_what_the_manifests_make(self):
        named = {
            *re.findall(r"--namespace (?!openshift)(\S+)", self.COMMANDS),
            *re.findall(r"\b(?:daemonset|namespace)/(\S+)", self.COMMANDS),
        }
        self.assertEqual(named, {"healthport"})
        for selector in re.findall(r"--selector (\S+)=(\S+)", self.COMMANDS):
            self.assertIn(selector, DAEMONSET["template"]["metadata"]["labels"].items())
        image = re.findall(r"registry\.example\.com/\S+?(?=[ ,])", self.COMMANDS)
        self.assertEqual(set(image), {CONTAINER["image"]})
        (out,) = POD["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ][0]["matchExpressions"]
        self.assertEqual(
            set(re.findall(r"\bhealthport/out\S+?(?=[=-]$)", self.COMMANDS, re.M)), {out["key"]}
        )
        for port in re.findall(r"\b18\d{3}\b", self.TEXT):
            self.assertIn(int(port), PORTS.values())

    def test_the_timeline_is_what_the_program_says(self):
        worst = run(BINARY, *CONTAINER["args"], "--check-config")
        closes = float(re.search(r"closes ([\d.]+)s after a bad answer", worst)[1])
        opens = int(re.search(r"opens (\d+)s after", worst)[1])
        gone, back = closes + 3 * 10, opens + 2 * 10
        for line in [
            f"| T + {closes:g} s | serves | closed |",
            f"| T + {gone:g} s |",
            f"| R + {opens} s | serves | open |",
            f"| R + {back} s |",
            f"{45 - gone:g} s before it must |",
            f"back for {30 - back} s",
        ]:
            self.assertIn(line, " ".join(self.TEXT.split()))

    def test_the_shell_can_read_the_commands(self):
        run("sh", "-n", "-c", self.COMMANDS)
        self.assertGreater(self.COMMANDS.count("oc "), 5)


if __name__ == "__main__":
    unittest.main()
