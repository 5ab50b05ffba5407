import subprocess
import sys

LOCAL = "from pipeline.local.beam_import import import_beam; import_beam(connectors=False); import sys, apache_beam as beam;"


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_beam_is_imported_without_its_connectors_and_without_a_warning():
    code = "print([m for m in ('boto3', 'pymongo', 'google.cloud', 'apache_beam.io.gcp.bigquery') if m in sys.modules])"
    assert output_of(LOCAL + code) == "[]\n"


def test_connectors_can_be_imported_afterwards():
    code = (
        "import bson, pymongo, httplib2, importlib.util;"
        "from apache_beam.io.gcp import bigquery;"
        "from apache_beam.internal.http_client import get_new_http;"
        "print(type(get_new_http()).__name__, bigquery.ReadFromBigQuery.__name__, pymongo.MongoClient.__name__)"
    )
    assert output_of(LOCAL + code) == "Http ReadFromBigQuery MongoClient\n"


def test_a_pipeline_runs_without_the_connectors():
    code = (
        "from apache_beam.runners.portability.fn_api_runner import FnApiRunner\n"
        "with beam.Pipeline(runner=FnApiRunner()) as pipeline:\n"
        "    pipeline | beam.Create([1, 2]) | beam.CombineGlobally(sum) | beam.Map(print)\n"
    )
    assert output_of(LOCAL + "\n" + code) == "3\n"


def test_beam_with_connectors_is_the_whole_of_beam_without_a_warning():
    code = LOCAL.replace("False", "True") + "print(hasattr(beam.io, 'ReadFromBigQuery'))"
    assert output_of(code) == "True\n"


def test_packages_that_a_local_job_does_not_use_are_imported_when_they_are_used():
    code = (
        "import pipeline.execution;"
        "later = [m for m in ('beartype', 'requests', 'urllib3', 'yaml') if m in sys.modules];"
        "from apache_beam.runners.portability import flink_uber_jar_job_server as flink;"
        "from apache_beam.transforms import external;"
        "from apache_beam.typehints import typehints;"
        "import requests, yaml;"
        "print(later, flink.requests.get is requests.get, external.yaml.safe_load('[1]'), 'beartype' in sys.modules,"
        " typehints.is_subhint(bool, int), typehints.is_subhint(str, int))"
    )
    assert output_of(LOCAL + code) == "[] True [1] False True False\n"


def test_hints_that_cannot_be_compared_are_inconsistent():
    code = (
        "from apache_beam.typehints import typehints\n"
        "try:\n"
        "    typehints.is_subhint('not a hint', 1)\n"
        "except typehints.BeartypeDoorException as error:\n"
        "    print(type(error.__cause__).__module__.partition('.')[0])\n"
    )
    assert output_of(LOCAL + "\n" + code) == "beartype\n"
