"""What has to hold of k8s/ without a cluster: rendered as `kubectl apply -k` does, it fits the published
schemas, its parts fit each other, and smidge takes what they tell it.

    check.py SMIDGE          needs kubectl, and PyPI's kubernetes-validate (schemas included)
"""

import json
import os
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

SMIDGE = os.path.abspath(sys.argv[1])
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
# The oldest that has policy/v1 and a schema, and the newest known.
VERSIONS = ("1.25", kubernetes_validate.latest_version())


def check(holds, what):
    if not holds:
        raise SystemExit(f"k8s: FAILED: {what}")


def said(*args, env=None):
    """smidge's exit code and what it said; nothing of this environment reaches it."""
    run = subprocess.run([SMIDGE, *args], capture_output=True, text=True, timeout=60, env=env or {})
    return run.returncode, run.stdout + run.stderr


def bytes_of(size):
    for unit, factor in (("Mi", 2**20), ("Ki", 2**10), ("Gi", 2**30)):
        if size.endswith(unit):
            return int(size.removesuffix(unit)) * factor
    return int(size)


rendered = subprocess.run(["kubectl", "kustomize", "k8s"], cwd=ROOT, capture_output=True, text=True, timeout=60)
check(rendered.returncode == 0, f"kustomization.yaml: {rendered.stderr.strip()}")
resources = list(yaml.safe_load_all(rendered.stdout))
# An example, for the cluster's owner to apply.
with open(f"{ROOT}/k8s/network-policy.yaml") as file:
    policy = yaml.safe_load(file)
for version in VERSIONS:
    for resource in [*resources, policy]:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            raise SystemExit(f"k8s: FAILED: {resource['kind']}, {path}: {error.message} (Kubernetes {version})") from None

kinds = {resource["kind"]: resource for resource in resources}
check(sorted(kinds) == ["ConfigMap", "PodDisruptionBudget", "Service", "StatefulSet"] and len(resources) == 4,
      f"these and no other resources are made: {[r['kind'] for r in resources]}")
service, stateful = kinds["Service"], kinds["StatefulSet"]
pod = stateful["spec"]["template"]["spec"]
container, = pod["containers"]

# A headless service that has every pod, ready or not.
check(service["spec"]["clusterIP"] == "None", "the service is headless")
check(service["spec"]["publishNotReadyAddresses"] is True, "pods that are not ready have records, too")
check(stateful["spec"]["serviceName"] == service["metadata"]["name"], "the StatefulSet names its service")
check(stateful["spec"]["podManagementPolicy"] == "Parallel", "no pod waits for one that waits for it")
labels = stateful["spec"]["template"]["metadata"]["labels"]
for what, selector in (("service", service["spec"]["selector"]),
                       ("StatefulSet", stateful["spec"]["selector"]["matchLabels"]),
                       ("PodDisruptionBudget", kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])):
    check(selector and selector.items() <= labels.items(), f"the {what} selects the pods")
check(kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1, "machines are drained one pod at a time")
port, = service["spec"]["ports"]
exposed, = container["ports"]
check((port["protocol"], port["targetPort"], port["port"]) == ("UDP", exposed["name"], exposed["containerPort"]),
      "the service leads to the pods' UDP port")

# The policy lets the pods talk to each other and ask for names, and nothing else.
with open(f"{ROOT}/k8s/kustomization.yaml") as file:
    check("# - network-policy.yaml\n" in file.read(), "the policy is named where it is applied")
rules = policy["spec"]
check(rules["podSelector"]["matchLabels"].items() <= labels.items(), "the policy is the pods'")
check(sorted(rules["policyTypes"]) == ["Egress", "Ingress"], "the policy is about both ways")
each_other = {"from": [{"podSelector": rules["podSelector"]}],
              "ports": [{"protocol": exposed["protocol"], "port": exposed["containerPort"]}]}
check(rules["ingress"] == [each_other], "the pods are reached by each other only, at their port")
talk, names = rules["egress"]
check(talk == {"to": each_other["from"], "ports": each_other["ports"]}, "the pods reach each other")
check(names == {"ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]}, "the pods may ask for names")

# What the pods are told is taken by smidge, and fits the rest.
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
volumes = {volume["name"]: volume for volume in pod["volumes"]}
check(set(mounts) == set(volumes), "every volume is mounted, every mount has its volume")
check(volumes["config"]["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"], "the ConfigMap is mounted")
check(mounts["config"] == "/etc/smidge", "config.toml is where `smidge run` looks for it")
env = {entry["name"]: entry.get("value", "smidge-0") for entry in container["env"]}
with tempfile.TemporaryDirectory() as directory:
    config, secret = f"{directory}/config.toml", f"{directory}/secret"
    with open(config, "w") as file:
        file.write(kinds["ConfigMap"]["data"]["config.toml"])
    with open(secret, "w") as file:
        file.write("0123456789abcdef" * 4)
    code, text = said("config", "check", config)
    check(code == 0, f"smidge takes the ConfigMap: {text}")
    mounted = env["SMIDGE__IDENTITY__DERIVE_SECRET__FILE"]
    check(os.path.dirname(mounted) == mounts["identity"], "the secret is read where it is mounted")
    env["SMIDGE__IDENTITY__DERIVE_SECRET__FILE"] = secret
    code, peer = said("key", "show", "--config", config, env=env)
    check(code == 0 and peer.startswith("12D3KooW"), f"a key is derived from the secret and the pod's name: {peer}")
    other = said("key", "show", "--config", config, env=env | {"SMIDGE__IDENTITY__DERIVE_NAME": "smidge-1"})[1]
    check(other.startswith("12D3KooW") and other != peer, "another pod has another key")
    code, shown = said("config", "show", "--config", config, "--json", env=env)
    check(code == 0, f"smidge takes the pod's environment: {shown}")
shown = json.loads(shown)
name = f"{service['metadata']['name']}:{exposed['containerPort']}"
names = shown["dial.names"]["value"]
check(name in names, f"the pods look for {name}: {names}")
fields = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"] if "valueFrom" in entry}
check(fields == dict.fromkeys(["SMIDGE__IDENTITY__DERIVE_NAME", "SMIDGE__NODE__NAME"], "metadata.name"),
      "each pod has its own name, and derives its key from it")

# The probes are commands that smidge has; live never waits for peers. Without a node, exit code 69.
for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
    binary, *args = container[probe]["exec"]["command"]
    check(binary == "/smidge", f"{probe} needs no shell")
    code, text = said(*args, "--api", "http://127.0.0.1:9")
    check(code == 69, f"{probe}: {args} is understood: exit code {code}: {text}")
    check((args[0] == "ready") == (probe == "readinessProbe"), f"{probe} asks {args[0]}")
check(container["args"] == ["run"], "the pods run a node")

# Nothing but the node may be written or done.
security = container["securityContext"]
check(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], "the root is read-only")
check(security["capabilities"]["drop"] == ["ALL"], "no capability is kept")
check(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001, "the image's user")
check(pod["terminationGracePeriodSeconds"] > 5, "a node has the time to drain")

limit = bytes_of(container["resources"]["limits"]["memory"])
own = bytes_of(shown["limits.memory"]["value"].removesuffix("B"))
check(own < limit, "the node's own bound lies below the kernel's")
print(f"k8s: {len(resources)} resources and a NetworkPolicy fit the schemas of Kubernetes {' and '.join(VERSIONS)}, "
      "and smidge takes what they tell it")
