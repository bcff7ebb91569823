"""What openshift/ promises, read from its files as kubectl renders them: called by
tests/packaging/openshift.rs with the Python of target/venv and the program's path in
HEALTHPORT.

Kubernetes' own objects are checked against its schemas. Those of OpenShift and of
the Prometheus operator are in no package: their shape is compared with what is
meant, their rules and queries are run by promtool. There is no Butane binary in a
package registry either: what Butane would read is checked, not what it writes.
"""

import base64
import configparser
import copy
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
BINARY = os.environ["HEALTHPORT"]
KUBECTL = Path(sys.executable).parent / "kubectl"


def read(path):
    return (ROOT / path).read_text()


def prose(path):
    """The file without line breaks, so that its comments can be searched."""
    return re.sub(r"\s*\n[\s#]*", " ", read(path))


def run(*command):
    """What the command says on both outputs; it must succeed. tests/run installs it."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, stdout=pipe, stderr=both, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def settings(args):
    """What --check-config says that these arguments mean."""
    lines = run(BINARY, *args, "--check-config").splitlines()
    return dict(line.split(maxsplit=1) for line in lines[: lines.index("")])


def render(folder):
    """What `oc apply --kustomize` would send, by kind and name."""
    docs = yaml.safe_load_all(run(KUBECTL, "kustomize", ROOT / folder))
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in docs}


def rendered_with(change, folder="openshift"):
    """The same, after this change of the text of the folder's kustomization.yaml."""
    with tempfile.TemporaryDirectory() as copied:
        shutil.copytree(ROOT / "openshift", f"{copied}/openshift")
        file = Path(copied, folder, "kustomization.yaml")
        file.write_text(change(file.read_text()))
        return render(file.parent)


def offered(text, first):
    """The text with the block of comments in it that begins with this line."""
    (block,) = re.finditer(rf"(?m)^( *)# {re.escape(first)}\n(?:\1# .*\n)*", text)
    return text.replace(block[0], re.sub(r"(?m)^( *)# ", r"\1", block[0]))


OPENSHIFT, KUBERNETES = render("openshift"), render("openshift/kubernetes")
BINDING = ("RoleBinding", "healthport-hostnetwork-v2")
BOARD = ("ConfigMap", "grafana-dashboard-healthport")
VERSION = run(BINARY, "--version").split()[1]
DAEMONSET = OPENSHIFT["DaemonSet", "healthport"]["spec"]
POD = DAEMONSET["template"]["spec"]
(CONTAINER,) = POD["containers"]
TERMS = POD["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
((OUT,),) = [term["matchExpressions"] for term in TERMS["nodeSelectorTerms"]]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
MONITOR = OPENSHIFT["PodMonitor", "healthport"]
RULES = [OPENSHIFT["PrometheusRule", name] for name in ["healthport", "healthport-notchecked"]]
GROUPS = [group for doc in RULES for group in doc["spec"]["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
DASHBOARD = json.loads(read("openshift/dashboard.json"))
PANELS = [panel for row in DASHBOARD["rows"] for panel in row["panels"]]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
TUNED = yaml.safe_load(read("openshift/tuned.yaml"))
BUTANE = yaml.safe_load(read("openshift/machineconfig.bu"))
(UNIT,) = BUTANE["systemd"]["units"]
SYSCTL = "systemd/healthport.sysctl.conf"
# One assignment, whose lines systemd joins.
ROUTER = read("systemd/router.conf").replace("\\\n", "")
ROUTER = shlex.split(re.search(r'^HEALTHPORT_OPTS="(.*)"$', ROUTER, re.M)[1])


class Daemonset(unittest.TestCase):
    def test_the_schemas_accept_it(self):
        # OpenShift 4.14 is Kubernetes 1.27; the last is the newest in the package.
        for version in ["1.27", kubernetes_validate.latest_version()]:
            for doc in [*OPENSHIFT.values(), *KUBERNETES.values()]:
                if doc["apiVersion"] != "monitoring.coreos.com/v1":
                    kubernetes_validate.validate(doc, version, strict=True)
        for wrong in [{"hostNetwork": "yes"}, {"hostNetwrok": True}]:
            broken = copy.deepcopy(OPENSHIFT["DaemonSet", "healthport"])
            broken["spec"]["template"]["spec"].update(wrong)
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(broken, "1.27", strict=True)

    def test_image_tag_and_url_are_set_in_one_place(self):
        def change(text):
            for old, new in [
                ("newName: registry.example.com/healthport", "newName: quay.example/hp"),
                (f"newTag: {VERSION}", "newTag: 9.9.9"),
                ("--url=http://localhost:1936/healthz/ready", "--url=http://localhost:1/x"),
            ]:
                self.assertEqual(text.count(old), 1, old)
                text = text.replace(old, new)
            return text

        for folder in ["openshift", "openshift/kubernetes"]:
            daemonset = rendered_with(change, folder)["DaemonSet", "healthport"]
            (container,) = daemonset["spec"]["template"]["spec"]["containers"]
            self.assertEqual(container["image"], "quay.example/hp:9.9.9")
            self.assertEqual(container["args"][0], "--url=http://localhost:1/x")
            self.assertEqual(container["args"][1:], CONTAINER["args"][1:])

    def test_kubernetes_has_the_same_pod_without_what_is_openshifts(self):
        theirs = copy.deepcopy(OPENSHIFT)
        template = theirs["DaemonSet", "healthport"]["spec"]["template"]
        annotations = template["metadata"].pop("annotations")
        self.assertEqual(annotations, {"openshift.io/required-scc": "hostnetwork-v2"})
        del template["spec"]["nodeSelector"]["node-role.kubernetes.io/worker"]
        # Nor a default node selector of the cluster.
        annotations = theirs["Namespace", "healthport"]["metadata"].pop("annotations")
        self.assertEqual(annotations, {"openshift.io/node-selector": ""})
        for name, doc in KUBERNETES.items():
            self.assertEqual(doc, theirs[name])
        # Nor an architecture: the image has several.
        for text in ["openshift.io", "node-role.kubernetes.io/worker", "scc", "kubernetes.io/arch"]:
            self.assertNotIn(text, json.dumps(list(KUBERNETES.values())))

    def test_the_readiness_probe_that_is_offered_fits(self):
        daemonset = rendered_with(lambda text: offered(text, "- op: add"))["DaemonSet", "healthport"]
        kubernetes_validate.validate(daemonset, "1.27", strict=True)
        (container,) = daemonset["spec"]["template"]["spec"]["containers"]
        # Not of the port: the kubelet's probes would count as checks of the switch.
        probe = {"httpGet": {"path": "/readyz", "port": "metrics"}}
        self.assertEqual(container["readinessProbe"], probe)

    def test_it_has_no_privilege(self):
        unprivileged = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        self.assertEqual(POD["securityContext"], unprivileged)
        no_privilege = {"privileged": False, "allowPrivilegeEscalation": False}
        no_privilege.update(readOnlyRootFilesystem=True, capabilities={"drop": ["ALL"]})
        self.assertEqual(CONTAINER["securityContext"], no_privilege)
        for of in [POD, OPENSHIFT["ServiceAccount", "healthport"]]:
            self.assertIs(of["automountServiceAccountToken"], False)
        self.assertIs(POD["hostNetwork"], True)
        for absent in ["hostPID", "hostIPC", "volumes", "initContainers"]:
            self.assertNotIn(absent, POD)
        for absent in ["command", "env", "envFrom", "lifecycle", "volumeMounts"]:
            self.assertNotIn(absent, CONTAINER)
        for port in CONTAINER["ports"]:
            # Above what needs a capability, below NodePort.
            self.assertTrue(1024 < port["containerPort"] < 30000, port)

    def test_only_the_constraint_it_needs_is_bound_to_its_account(self):
        binding = OPENSHIFT[BINDING]
        role, (account,) = binding["roleRef"], binding["subjects"]
        self.assertEqual(role["name"], "system:openshift:scc:hostnetwork-v2")
        self.assertIn((account["kind"], account["name"]), OPENSHIFT)
        self.assertEqual(POD["serviceAccountName"], account["name"])
        # Another constraint of a higher priority must not take the pod over.
        annotations = DAEMONSET["template"]["metadata"]["annotations"]
        self.assertEqual(role["name"].split(":")[-1], annotations["openshift.io/required-scc"])
        for (kind, name), doc in OPENSHIFT.items():
            meta = doc["metadata"]
            namespace = meta["name"] if kind == "Namespace" else meta["namespace"]
            expected = "openshift-config-managed" if (kind, name) == BOARD else "healthport"
            self.assertEqual(namespace, expected, kind)
        labels = OPENSHIFT["Namespace", "healthport"]["metadata"]["labels"]
        self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "privileged")

    def test_one_node_after_the_other_and_evicted_last(self):
        self.assertEqual(DAEMONSET["updateStrategy"]["rollingUpdate"], {"maxUnavailable": 1})
        self.assertEqual(POD["priorityClassName"], "system-node-critical")
        labels = DAEMONSET["template"]["metadata"]["labels"]
        for selector in [DAEMONSET["selector"], MONITOR["spec"]["selector"]]:
            self.assertEqual(selector, {"matchLabels": labels})
        # kured sets its labels to "false" and deletes none.
        self.assertEqual((OUT["operator"], OUT["values"]), ("NotIn", ["", "true"]))

    def test_it_listens_where_a_node_has_ipv6_only(self):
        inside = """
            ip link set lo up; ip -4 address flush dev lo
            ip address add 2001:db8::1/128 dev lo nodad
            python=$1; shift
            "$@" 2>/dev/null & trap 'kill $!' EXIT
            for try in $(seq 100); do
                ! "$python" -c 'import urllib.request as http
http.urlopen("http://[2001:db8::1]:18988/livez")' 2>/dev/null || exit 0
                sleep 0.1
            done; exit 1"""
        net = ["unshare", "--map-root-user", "--net", "sh", "-euc", inside, "sh", sys.executable]
        run(*net, BINARY, *CONTAINER["args"])

    def test_the_program_accepts_its_arguments_and_means_what_router_conf_says(self):
        ours, routers = settings(CONTAINER["args"]), settings(ROUTER)
        self.assertEqual(ours["metrics-listen"], f"[::]:{PORTS['metrics']}")
        self.assertEqual(ours["listen"], f"[::]:{PORTS['check']}")
        differ = {name for name in ours if ours[name] != routers[name]}
        self.assertEqual(differ, {"listen", "metrics-listen", "drain-file"})
        # The defaults are the recommendation: what is named differs from them, but for
        # the URL, which has its place in kustomization.yaml.
        defaults = settings([])
        self.assertEqual(CONTAINER["args"][0], f"--url={defaults['url']}")
        for arg in CONTAINER["args"][1:]:
            name, value = arg.removeprefix("--").split("=", 1)
            self.assertNotEqual(defaults[name], value, arg)

    def test_a_stopped_process_is_killed_in_the_time_that_the_comment_says(self):
        probe = CONTAINER["livenessProbe"]
        self.assertEqual(probe["httpGet"], {"path": "/livez", "port": "metrics"})
        period, count = probe["periodSeconds"], probe["failureThreshold"]
        killed = period * count + probe["timeoutSeconds"] + probe["terminationGracePeriodSeconds"]
        comments = prose("openshift/kubernetes/daemonset.yaml")
        self.assertIn(f"killed within {killed} s", comments)
        # The lease before any kill, as in the unit.
        lease = float(settings(CONTAINER["args"])["max-age"].removesuffix("s"))
        self.assertIn(f"by itself after --max-age, {lease:g} s", comments)
        self.assertLess(lease, min(period * (count - 1), POD["terminationGracePeriodSeconds"]))
        self.assertNotIn("readinessProbe", CONTAINER)
        # Less than the exchange may take would call a slow answer a dead process.
        self.assertGreater(probe["timeoutSeconds"], 1)

    def test_a_taken_metrics_port_does_not_kill_it(self):
        startup = CONTAINER["startupProbe"]
        self.assertEqual(startup["httpGet"], CONTAINER["livenessProbe"]["httpGet"])
        # The most that the field takes, in years: liveness never begins.
        self.assertEqual(startup["failureThreshold"], 2**31 - 1)
        years = startup["failureThreshold"] * startup["periodSeconds"] / (365.25 * 24 * 3600)
        comments = prose("openshift/kubernetes/daemonset.yaml")
        self.assertIn(f"(2^31 failures, {years:.0f} years)", comments)

    def test_image_and_program_have_one_version(self):
        self.assertEqual(CONTAINER["image"], f"registry.example.com/healthport:{VERSION}")
        self.assertEqual(CONTAINER["imagePullPolicy"], "IfNotPresent")

    def test_the_memory_limit_is_the_units(self):
        limit = CONTAINER["resources"]["limits"]["memory"].removesuffix("i")
        self.assertIn(f"MemoryMax={limit}\n", read("systemd/healthport@.service"))


class Monitoring(unittest.TestCase):
    def test_it_scrapes_what_the_pod_serves(self):
        self.assertEqual(set(MONITOR["spec"]), {"selector", "podMetricsEndpoints"})
        (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
        self.assertEqual(set(endpoint), {"port", "path", "interval", "relabelings"})
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
        queries = " ".join([*QUERIES, *(rule["expr"] for rule in ALERTS.values())])
        names = set(re.findall(r"\bhealthport_\w+", queries))
        self.assertGreater(len(names), 10, names)
        for name in names:
            self.assertRegex(served, rf"(?m)^{name}[ {{]")
        # And the labels, but for those that Prometheus adds, and up.
        labels = re.findall(r"\b(?:by|on) \(([^)]+)\)|{(\w+)!=", queries)
        labels = {label for found in labels for label in re.split(", ", "".join(found))}
        self.assertEqual(labels, {"instance", "job", "le", "to", "result"})
        for label in labels - {"instance", "job"}:
            self.assertRegex(served, rf"(?m)^healthport_\w+{{{label}=")

    def test_the_alerts_fire_when_they_should_and_only_then(self):
        for doc in RULES:
            self.assertEqual(list(doc["spec"]), ["groups"])
        with tempfile.TemporaryDirectory() as folder:
            rules = Path(folder) / "rules.yaml"
            rules.write_text(yaml.safe_dump({"groups": GROUPS}))
            cases = shutil.copy(ROOT / "tests/openshift/alerts.yaml", folder)
            self.assertIn("SUCCESS: 6 rules found", run("promtool", "check", "rules", rules))
            # The descriptions are prose; their labels are those of the alert.
            groups = copy.deepcopy(GROUPS)
            for rule in [rule for group in groups for rule in group["rules"]]:
                del rule["annotations"]["description"]
            rules.write_text(yaml.safe_dump({"groups": groups}))
            run("promtool", "test", "rules", cases)
        tests = yaml.safe_load(read("tests/openshift/alerts.yaml"))["tests"]
        cases = [case for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]]
        tested = {case["alertname"]: set(case["exp_alerts"][-1]["exp_labels"]) for case in cases}
        self.assertEqual(set(tested), set(ALERTS))
        for name, rule in ALERTS.items():
            self.assertLessEqual(set(re.findall(r"\$labels\.(\w+)", json.dumps(rule))), tested[name])

    def test_one_line_leaves_the_alert_out_that_half_open_checks_set_off(self):
        left = rendered_with(lambda text: text.replace("\n  - notchecked.yaml\n", "\n"))
        self.assertEqual(set(OPENSHIFT) - set(left), {("PrometheusRule", "healthport-notchecked")})
        self.assertEqual(list(ALERTS)[-1], "HealthportNotChecked")
        self.assertNotIn("NotChecked", json.dumps(list(left.values())))

    def test_slow_means_what_no_ready_router_is_and_the_timeout_is_not_near(self):
        slow = ALERTS["HealthportProbeSlow"]
        timeout = float(settings(CONTAINER["args"])["timeout"].removesuffix("s"))
        late = re.search(r"10,000 routes by up to (\S+) s", prose("openshift/podmonitor.yaml"))[1]
        above = float(re.search(r"> (\S+)\n", slow["expr"])[1])
        self.assertTrue(float(late) < above <= timeout / 2)
        description = " ".join(slow["annotations"]["description"].split())
        self.assertIn(f"within the timeout, {timeout:g} s", description)
        self.assertIn(f"vector({timeout:g})", QUERIES)

    def test_the_queries_of_the_dashboard_give_what_they_should(self):
        run("promtool", "test", "rules", ROOT / "tests/openshift/dashboard.yaml")
        (test,) = yaml.safe_load(read("tests/openshift/dashboard.yaml"))["tests"]
        self.assertEqual({case["expr"] for case in test["promql_expr_test"]}, set(QUERIES))

    def test_the_console_can_show_the_dashboard(self):
        board = OPENSHIFT[BOARD]
        self.assertEqual(board["metadata"]["labels"], {"console.openshift.io/dashboard": "true"})
        # The console reads the first value. It is the file, which Grafana imports.
        self.assertEqual(list(board["data"].values()), [read("openshift/dashboard.json")])
        # Read from openshift/monitoring-plugin: rows of panels of the old schema, these
        # types, a list of columns for a table. Anything else is left out or an error.
        self.assertEqual(len({panel["id"] for panel in PANELS}), len(PANELS))
        for panel in PANELS:
            self.assertIn(panel["type"], ["graph", "singlestat", "table"])
            ids = [target["refId"] for target in panel["targets"]]
            self.assertEqual(ids, sorted(set(ids)))
            self.assertEqual("styles" in panel, panel["type"] == "table")
            if panel["type"] == "table":
                columns = {column["pattern"] for column in panel["styles"]}
                self.assertEqual(columns, {"instance", "Time", *(f"Value #{id}" for id in ids)})
            legends = [target.get("legendFormat") for target in panel["targets"]]
            self.assertEqual(all(legends), panel["type"] == "graph")
            for target in panel["targets"]:
                # No variables: each query is what promtool ran.
                self.assertNotIn("$", target["expr"])
                named = re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))
                kept = re.search(r"by \((.*?)\)", target["expr"])
                kept = set(kept[1].split(", ")) - {"le"} if kept else set()
                if panel["type"] == "graph":
                    self.assertEqual(set(named), kept, target)


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
        known = "variant version metadata name labels storage files path mode contents local"
        known += " systemd units enabled contents_local dropins"
        unknown = set(keys(BUTANE)) - set(known.split())
        self.assertEqual(unknown, {"machineconfiguration.openshift.io/role"})
        self.assertEqual((BUTANE["variant"], BUTANE["version"]), ("openshift", "4.14.0"))
        # The files are those of the packages.
        for file in BUTANE["storage"]["files"]:
            place = file["path"].replace("usr/local/", "usr/").replace("etc/sysctl", "usr/lib/sysctl")
            listed = f'["{file["contents"]["local"]}", "{place[1:]}", "{file["mode"]:o}"]'
            self.assertIn(listed, read("Cargo.toml"))
        # Not a copy of the unit: the unit.
        self.assertEqual(UNIT["contents_local"], "systemd/healthport@.service")

    def test_tuned_reserves_the_same_ports(self):
        ours = re.search(r"(?m)^(net\.ipv4\.ip_local_reserved_ports) = (\S+)$", read(SYSCTL))
        profiles = {profile["name"]: profile["data"] for profile in TUNED["spec"]["profile"]}
        for name, text in profiles.items():
            data = configparser.ConfigParser()
            data.read_string(text)
            self.assertEqual(data["main"]["include"], name.replace("healthport", "openshift"))
            self.assertEqual(dict(data["sysctl"]), {ours[1]: ours[2]})
        # The operator's own have 30 and 40.
        recommended = TUNED["spec"]["recommend"]
        self.assertEqual([entry["profile"] for entry in recommended], list(profiles))
        self.assertTrue(all(entry["priority"] < 30 for entry in recommended))

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
            text = read(UNIT["contents_local"]).replace("ExecStart=healthport", f"ExecStart={BINARY}")
            unit.write_text(text)
            unit.with_name(unit.name + ".d").mkdir()
            added = Path(f"{unit}.d") / dropin["name"]
            added.write_text(dropin["contents"])
            self.assertEqual(run("systemd-analyze", "verify", "--man=no", unit), "")
            # And with the lead that is offered.
            text = read("openshift/machineconfig.bu")
            lead = offered(text, "- name: healthport-router-lead.service")
            lead = yaml.safe_load(lead)["systemd"]["units"][1]
            self.assertIn(f"After={lead['name']}\n", dropin["contents"])
            unit.with_name(lead["name"]).write_text(lead["contents"])
            self.assertEqual(run("systemd-analyze", "verify", "--man=no", unit.with_name(lead["name"])), "")
            path = "- path: /etc/systemd/system/crio-.scope.d/10-healthport.conf"
            pods = yaml.safe_load(offered(text, path))["storage"]["files"][-1]
            self.assertEqual(pods["contents"]["inline"], f"[Unit]\nBefore={lead['name']}\n")

    def test_the_node_disruption_policy_covers_all_of_it(self):
        comment = "\n".join(re.findall("(?m)^#   (.*)", read("openshift/machineconfig.bu")))
        policy = yaml.safe_load(comment[comment.index("apiVersion: operator.openshift.io/v1") :])
        self.assertEqual(policy["kind"], "MachineConfiguration")
        self.assertEqual(policy["metadata"]["name"], "cluster")
        policy = policy["spec"]["nodeDisruptionPolicy"]
        for file in BUTANE["storage"]["files"]:
            places = [f"{entry['path']}/" for entry in policy["files"]]
            self.assertEqual(sum(map(f"{file['path']}/".startswith, places)), 1, file)
        self.assertEqual([entry["name"] for entry in policy["units"]], [UNIT["name"]])
        for entry in policy["files"] + policy["units"]:
            is_sysctl = entry.get("path") == "/etc/sysctl.d/50-healthport.conf"
            ours = [{"type": "DaemonReload"}, restart(UNIT["name"])]
            expected = [restart("systemd-sysctl.service")] if is_sysctl else ours
            self.assertEqual(entry["actions"], expected)
        # NodeDisruptionPolicyServiceName of openshift/api, operator/v1.
        self.assertRegex(UNIT["name"], r"^[a-zA-Z0-9:._\\-]+\.service$")


def restart(unit):
    return {"type": "Restart", "restart": {"serviceName": unit}}


def keys(value):
    """Those of all the mappings in it."""
    if isinstance(value, list):
        return [key for inner in value for key in keys(inner)]
    return [*value, *keys(list(value.values()))] if isinstance(value, dict) else []


def unanswered(command):
    """What kubectl says to a command that no server answers: it reads it first."""
    command = [KUBECTL, "--kubeconfig=/dev/null", "--server=http://127.0.0.1:9", *shlex.split(command)]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=ROOT, text=True, timeout=60, **both).stdout


class Readme(unittest.TestCase):
    TEXT = read("openshift/README.md")
    COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S))

    def test_the_files_exist(self):
        named = {"openshift/README.md", *re.findall(r"\bopenshift/[\w.]+\w", self.TEXT)}
        self.assertEqual(named, {f"openshift/{path.name}" for path in (ROOT / "openshift").iterdir()})

    def test_the_commands_name_what_the_manifests_make(self):
        named = {
            *re.findall(r"--namespace (?!openshift)(\S+)", self.COMMANDS),
            *re.findall(r"\b(?:daemonset|namespace)/(\S+)", self.COMMANDS),
        }
        self.assertEqual(named, {"healthport"})
        self.assertIn(TUNED["metadata"]["namespace"], self.COMMANDS)
        (rule,) = re.findall(r"delete prometheusrule (\S+)", self.COMMANDS)
        self.assertIn("NotChecked", json.dumps(OPENSHIFT["PrometheusRule", rule]))
        for selector in re.findall(r"--selector (\S+)=(\S+)", self.COMMANDS):
            self.assertIn(selector, DAEMONSET["template"]["metadata"]["labels"].items())
        for folder in re.findall(r"--kustomize (\S+)", self.COMMANDS):
            self.assertTrue(render(folder))
        image = re.findall(r"registry\.example\.com/\S+?(?=[ ,])", self.COMMANDS)
        self.assertEqual(set(image), {CONTAINER["image"]})
        (url,) = re.findall(r"-- /healthport --once (.*)", self.COMMANDS)
        self.assertEqual(url.replace(" ", "="), CONTAINER["args"][0])
        self.assertEqual(set(re.findall(r"\bhealthport/out[\w-]+\w", self.TEXT)), {OUT["key"]})
        for port in re.findall(r"\b18\d{3}\b", self.TEXT):
            self.assertIn(int(port), PORTS.values())

    def test_kubectl_can_read_the_commands(self):
        commands = re.findall(r"\b(?:oc|kubectl) (.*?)(?=\)?;|$)", self.COMMANDS, re.M)
        # A node of OpenShift's own `debug` is no argument of kubectl's.
        commands = [command for command in commands if not command.startswith("debug ")]
        self.assertGreater(len(commands), 20)
        for command in commands:
            said = unanswered(command)
            self.assertRegex(said, "connection refused|was refused", f"{command}\n{said}")
        for wrong in ["get pods --widely", "rollout undone daemonset/healthport", "label node NODE"]:
            self.assertNotIn("refused", unanswered(wrong))

    def test_the_timeline_is_what_the_program_says(self):
        worst = run(BINARY, *CONTAINER["args"], "--check-config")
        closes = float(re.search(r"closes ([\d.]+)s after a bad answer", worst)[1])
        opens = int(re.search(r"opens (\d+)s after", worst)[1])
        page = read("README.md")
        every = int(re.search(r"\| interval, timeout \| (\d+) s,", page)[1])
        down, up = map(int, re.search(r"\| down after, up after \| (\d+), (\d+) \|", page).groups())
        gone, back = closes + down * every, opens + up * every
        serves = int(re.search(r"\| T \+ (\d+) s \| closes 80 and 443", self.TEXT)[1])
        self.assertIn(f"| {gone:g} s of {serves} s |", page)
        for line in [
            f"every {every} s, down after {down}, up after {up}.",
            f"| T + {closes:g} s | serves | closed |",
            f"| T + {gone:g} s |",
            f"| R + {opens} s | serves | open |",
            f"| R + {back} s |",
            f"with {round(serves - gone, 1):g} s to spare |",
            f"back for {30 - back} s",
        ]:
            self.assertIn(line, " ".join(self.TEXT.split()))


if __name__ == "__main__":
    unittest.main()
