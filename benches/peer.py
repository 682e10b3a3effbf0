"""What somebody writes in an afternoon: all pages into one table, standard library only. Prints the number of rows."""

import http.client
import json
import sqlite3
import sys
from urllib.parse import urlsplit

COLUMNS = ("id user_name active display_name given_name family_name email title department manager company location "
           "employee_number phone modified_at").split()
EXTENSION = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User"


def row(user):
    extension = user.get(EXTENSION, {})
    name = user.get("name", {})
    first = lambda values: values[0]["value"] if values else None
    label = lambda key, of="name": extension.get(key, {}).get(of)
    return (
        user["id"], user.get("userName"), user.get("active"), user.get("displayName"), name.get("givenName"),
        name.get("familyName"), first(user.get("emails")), user.get("title"), label("department"),
        label("manager", "displayName"), label("company"), label("location"), extension.get("employeeNumber"),
        first(user.get("phoneNumbers")), user["meta"]["lastModified"],
    )


def main(url, path):
    db = sqlite3.connect(path)
    db.execute(f"CREATE TABLE IF NOT EXISTS users ({', '.join(COLUMNS)}, PRIMARY KEY (id))")
    updates = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS[1:])
    upsert = (f"INSERT INTO users VALUES ({', '.join('?' * len(COLUMNS))}) "
              f"ON CONFLICT (id) DO UPDATE SET {updates}")
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    start = 1
    while True:
        connection.request("GET", f"/api/now/scim/Users?startIndex={start}&count=200&sortBy=id&sortOrder=ascending")
        page = json.loads(connection.getresponse().read())
        db.executemany(upsert, map(row, page["Resources"]))
        start += len(page["Resources"])
        if not page["Resources"] or start > page["totalResults"]:
            break
    db.commit()
    print(db.execute("SELECT count(*) FROM users").fetchone()[0])


main(sys.argv[1], sys.argv[2])
