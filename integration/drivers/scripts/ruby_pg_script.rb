# ruby-pg: libpq, text and binary parameters, type maps, pipeline mode, COPY, cancel.
require "pg"
$stdout.sync = true

puts "driver: #{PG::VERSION} libpq #{PG.library_version}"
$conn = PG.connect
$conn.set_notice_receiver { |result| puts "notice: #{result.error_field(PG::PG_DIAG_SEVERITY)} #{result.error_field(PG::PG_DIAG_SQLSTATE)} #{result.error_message.strip}" }

def report(error)
  puts "error: #{error.class} #{error.message.strip}"
  return unless error.respond_to?(:result) && error.result
  puts %i[SEVERITY SQLSTATE MESSAGE_PRIMARY MESSAGE_DETAIL MESSAGE_HINT STATEMENT_POSITION SCHEMA_NAME TABLE_NAME COLUMN_NAME CONSTRAINT_NAME]
    .map { |name| error.result.error_field(PG.const_get("PG_DIAG_#{name}")) }.inspect
end

def section(name)
  puts "== #{name}"
  yield
rescue StandardError => e
  report(e)
ensure
  $conn.exec("rollback") if !$conn.finished? && $conn.transaction_status != PG::PQTRANS_IDLE
end

def fails
  yield
  puts "no error"
rescue PG::Error => e
  report(e)
end

def balances
  %w[alice bob].map { |who| $conn.exec_params("select balance from accounts where id = $1", [who]).getvalue(0, 0) }
end

section "connect" do
  puts [$conn.server_version, $conn.protocol_version, $conn.internal_encoding, $conn.transaction_status, $conn.user, $conn.db].inspect
  %w[server_version server_encoding client_encoding is_superuser session_authorization DateStyle IntervalStyle TimeZone integer_datetimes
     standard_conforming_strings application_name].each { |name| puts "#{name} #{$conn.parameter_status(name)}" unless name == "application_name" }
  puts $conn.exec("select current_user, current_database(), 1").values.inspect
end

section "parameters" do
  columns = "id, i, b, t, u, n, ts, f, d, y, j, a, ta"
  insert = "insert into types_demo (#{columns}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
  value = ["t-1", -2147483648, 9223372036854775807, "naïve € 😀 'quoted' \\ back\nline", "0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69", "12345678901234567890.000123456789",
           "2024-02-29 23:59:58.123456+00", true, 0.1, { value: (0..255).to_a.pack("C*"), format: 1 }, '{"a": [1, null, "ü"]}', "{1,NULL,3}", '{x,NULL,"a \"b\""}']
  puts $conn.exec_params(insert, value).cmd_status
  puts $conn.exec_params(insert, ["t-2"] + [nil] * 12).cmd_tuples
  map = PG::BasicTypeMapForResults.new($conn)
  2.times do |format|
    %w[t-1 t-2].each do |key|
      result = $conn.exec_params("select id, i, b, t, u, ts, f, d, y, a from types_demo where id = $1", [key], format)
      puts result.fields.each_index.map { |n| [result.fname(n), result.ftype(n), result.fmod(n), result.fsize(n), result.fformat(n)] }.inspect
      puts result.values.inspect
      puts result.map_types!(map).values.inspect
    end
  end
  puts $conn.exec_params("select * from accounts where id = $1", [{ value: "alice", type: 25, format: 1 }]).values.inspect
  fails { $conn.exec_params("select balance from accounts where balance = $1 and id = 'alice'", ["x"]) }
end

section "prepared" do
  $conn.prepare("add", "update accounts set balance = balance + $1 where id = $2 returning id, balance")
  described = $conn.describe_prepared("add")
  puts [described.nparams, described.paramtype(0), described.paramtype(1), described.fields].inspect
  20.times { |n| puts $conn.exec_prepared("add", [n, format("d-%02d", n)]).values.inspect }
  fails { $conn.prepare("add", "select 1") }
  $conn.exec("prepare by_sql as select balance from accounts where id = $1")
  puts $conn.exec_prepared("by_sql", ["alice"]).values.inspect
  $conn.exec("deallocate add")
  fails { $conn.exec_prepared("add", [1, "d-00"]) }
end

section "transfer" do
  $conn.transaction do |c|
    puts c.exec_params("update accounts set balance = balance - $1 where id = $2", [100, "alice"]).cmd_status
    puts c.exec_params("update accounts set balance = balance + $1 where id = $2", [100, "bob"]).cmd_status
  end
  puts balances.inspect
end

section "check" do
  fails do
    $conn.transaction do |c|
      c.exec("update accounts set balance = balance + 5000 where id = 'bob'")
      fails { c.exec("update accounts set balance = balance - 5000 where id = 'alice'") }
      puts c.transaction_status
      c.exec("select 1")
    end
  end
  puts balances.inspect, $conn.transaction_status
end

section "savepoint" do
  $conn.transaction do |c|
    c.exec("update accounts set balance = balance - 1 where id = 'alice'")
    c.exec("savepoint s")
    fails { c.exec("insert into accounts values ('bob', 1)") }
    c.exec("rollback to savepoint s")
    c.exec("update accounts set balance = balance + 1 where id = 'bob'")
    c.exec("release savepoint s")
  end
  puts balances.inspect
end

section "batch" do
  $conn.enter_pipeline_mode
  300.times { |n| $conn.send_query_params("insert into accounts values ($1, $2) returning balance", [format("k-%03d", n), n]) }
  $conn.pipeline_sync
  got = []
  while (result = $conn.get_result || $conn.get_result)
    break if result.result_status == PG::PGRES_PIPELINE_SYNC
    got << result.getvalue(0, 0)
  end
  puts got.length, got.last
  $conn.send_query_params("update accounts set balance = balance + 1 where id = $1", ["alice"])
  $conn.send_query_params("update accounts set balance = balance - 100000 where id = $1", ["bob"])
  $conn.send_query_params("select 1", [])
  $conn.pipeline_sync
  while (result = $conn.get_result || $conn.get_result)
    puts [result.result_status, result.error_field(PG::PG_DIAG_SQLSTATE)].inspect
    break if result.result_status == PG::PGRES_PIPELINE_SYNC
  end
  $conn.exit_pipeline_mode
  puts balances.inspect
  $conn.send_query("select 1; select 2; update accounts set balance = balance where id = 'bob'")
  while (result = $conn.get_result)
    puts [result.cmd_status, result.values].inspect
  end
end

section "cursor" do
  $conn.send_query_params("select quantity from orders where customer = $1 order by order_id", ["carol"])
  $conn.set_single_row_mode
  sum = 0
  $conn.get_result.stream_each_row { |row| sum += row[0].to_i }
  nil while $conn.get_result
  puts sum
  $conn.transaction do |c|
    c.exec("declare part cursor for select quantity from orders where customer = 'carol' order by order_id")
    puts c.exec("fetch 3 from part").values.inspect, c.exec("fetch 2 from part").values.inspect
    described = c.describe_portal("part")
    puts [described.nfields, described.fname(0)].inspect
  end
end

section "copy" do
  $conn.copy_data("copy accounts from stdin") { 10.times { |n| $conn.put_copy_data("c-#{n}\t#{n}\n") } }
  puts $conn.get_last_result.inspect
  $conn.copy_data("copy accounts from stdin (format binary)", PG::BinaryEncoder::CopyRow.new(type_map: PG::TypeMapByColumn.new([PG::BinaryEncoder::String.new, PG::BinaryEncoder::Int8.new]))) { |_| 3.times { |n| $conn.put_copy_data(["b-#{n}", n]) } } if PG::BinaryEncoder.const_defined?(:CopyRow)
  rows = []
  $conn.copy_data("copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout", PG::TextDecoder::CopyRow.new) { while (row = $conn.get_copy_data) do rows << row end }
  puts rows.inspect
  rows = []
  $conn.copy_data("copy accounts to stdout") { while (row = $conn.get_copy_data) do rows << row end }
  puts rows.sort.inspect
  fails { $conn.copy_data("copy accounts from stdin") { $conn.put_copy_data("f-1\t1\nf-2\tx\n") } }
  fails { $conn.copy_data("copy accounts from stdin") { raise PG::Error, "ours" } }
  puts balances.inspect
end

section "cancel" do
  $conn.send_query("select pg_sleep(30)")
  sleep 0.3
  puts $conn.cancel.inspect
  fails { $conn.get_last_result }
  puts $conn.exec("select 1").values.inspect
end

section "errors" do
  ["selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)", "insert into accounts values ('alice', 1)",
   "select no_such_column from accounts where id = 'alice'", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'", ""].each do |statement|
    fails { $conn.exec(statement) }
    fails { $conn.exec_params(statement, []) }
  end
  %w[begin begin commit commit].each { |statement| puts $conn.exec(statement).cmd_status }
  puts $conn.exec("").result_status
end

section "reconnect" do
  $conn.exec("set application_name = 'first'")
  $conn.reset
  puts $conn.exec("show application_name").getvalue(0, 0) == "first", balances.inspect
  $conn.exec("discard all")
  puts $conn.exec("select 1").values.inspect
  $conn.close
  $conn = PG.connect(application_name: "second", options: "-c statement_timeout=5000")
  puts $conn.exec("show application_name").values.inspect, $conn.exec("show statement_timeout").values.inspect, $conn.parameter_status("application_name")
end

# What ActiveRecord's postgresql adapter asks when it connects and when it loads a model.
section "introspect" do
  ["SET client_min_messages TO warning", "SET standard_conforming_strings = on", "SET SESSION timezone TO 'UTC'", "SHOW max_identifier_length",
   "SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4', 'int8', 'text', 'uuid', 'numeric', 'timestamptz') ORDER BY 1",
   "SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation WHERE a.attrelid = '\"accounts\"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
   "SELECT a.attname FROM ( SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index WHERE indrelid = '\"orders\"'::regclass AND indisprimary ) i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.idx] ORDER BY i.idx",
   "SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r','v','m','p','f') ORDER BY 1"].each do |query|
    result = $conn.exec(query)
    puts result.cmd_status, result.values.inspect
  end
end
