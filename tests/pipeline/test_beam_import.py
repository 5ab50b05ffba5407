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
