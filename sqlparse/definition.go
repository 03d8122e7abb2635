package sqlparse

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// definition reads everything else: DDL, GRANT, VACUUM. The kind follows from
// the node's name (CreateSeqStmt, AlterRoleStmt, DropdbStmt), which the grammar
// keeps regular; the exceptions are listed.
func (c *collector) definition(n *pgquery.Node) {
	f := c.facts
	m := innerMessage(n)
	if m == nil {
		return
	}
	name := string(m.Descriptor().Name())
	f.Kind, f.Object = definitionKind(name), objects[name]
	if f.Object == "" {
		f.Object = objectType(m)
	}
	if d := m.Descriptor().Fields().ByName("concurrent"); d != nil {
		f.Concurrently = m.Get(d).Bool()
	}
	switch s := n.Node.(type) {
	case *pgquery.Node_VacuumStmt:
		if !s.VacuumStmt.IsVacuumcmd {
			f.Kind = Analyze
		}
	case *pgquery.Node_GrantStmt:
		f.Kind = grantKind(s.GrantStmt.IsGrant)
	case *pgquery.Node_GrantRoleStmt:
		f.Kind = grantKind(s.GrantRoleStmt.IsGrant)
	case *pgquery.Node_CreateStmt:
		c.createReference(s.CreateStmt)
	case *pgquery.Node_AlterTableStmt:
		c.alterReference(s.AlterTableStmt)
	case *pgquery.Node_IndexStmt:
		f.Unique = s.IndexStmt.Unique
	case *pgquery.Node_DropStmt:
		c.dropped(s.DropStmt)
	case *pgquery.Node_CreateFunctionStmt:
		if s.CreateFunctionStmt.IsProcedure {
			f.Object = "PROCEDURE"
		}
		schema, _ := qualified(s.CreateFunctionStmt.Funcname)
		f.Temp = f.Temp || isTempSchema(schema)
	case *pgquery.Node_DefineStmt:
		schema, _ := qualified(s.DefineStmt.Defnames)
		f.Temp = f.Temp || isTempSchema(schema)
	case *pgquery.Node_ReindexStmt:
		for _, p := range s.ReindexStmt.Params {
			f.Concurrently = f.Concurrently || p.GetDefElem().GetDefname() == "concurrently"
		}
	}
	// Relations, functions and what a view or a routine's body holds.
	c.children(m, place{})
}

// innerMessage is the message a node carries, nil for an empty node.
func innerMessage(n *pgquery.Node) protoreflect.Message {
	var inner protoreflect.Message
	n.ProtoReflect().Range(func(_ protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		inner = v.Message()
		return false
	})
	return inner
}

func grantKind(isGrant bool) Kind {
	if isGrant {
		return Grant
	}
	return Revoke
}

// irregular are the nodes whose name does not begin with their verb.
var irregular = map[string]Kind{
	"ClusterStmt": Cluster, "VacuumStmt": Vacuum, "ReindexStmt": Reindex, "TruncateStmt": Truncate,
	"CommentStmt": Comment, "RefreshMatViewStmt": RefreshView,
	"IndexStmt": Create, "ViewStmt": Create, "RuleStmt": Create, "DefineStmt": Create, "CompositeTypeStmt": Create,
	"ImportForeignSchemaStmt": Create, "CreatedbStmt": Create,
	"RenameStmt": Alter, "ReassignOwnedStmt": Alter, "SecLabelStmt": Other,
}

func definitionKind(name string) Kind {
	if k, ok := irregular[name]; ok {
		return k
	}
	switch {
	case strings.HasPrefix(name, "Create"):
		return Create
	case strings.HasPrefix(name, "Alter"):
		return Alter
	case strings.HasPrefix(name, "Drop"):
		return Drop
	}
	return Other
}

// objects names what statements are about whose node has no object type.
var objects = map[string]string{
	"CreateStmt": "TABLE", "CreateForeignTableStmt": "FOREIGN TABLE", "IndexStmt": "INDEX", "ViewStmt": "VIEW",
	"CreateSeqStmt": "SEQUENCE", "AlterSeqStmt": "SEQUENCE", "CreateSchemaStmt": "SCHEMA",
	"CreateFunctionStmt": "FUNCTION", "CreateTrigStmt": "TRIGGER", "RuleStmt": "RULE",
	"CreateRoleStmt": "ROLE", "AlterRoleStmt": "ROLE", "AlterRoleSetStmt": "ROLE", "DropRoleStmt": "ROLE",
	"CreatedbStmt": "DATABASE", "AlterDatabaseStmt": "DATABASE", "AlterDatabaseSetStmt": "DATABASE", "DropdbStmt": "DATABASE",
	"CreateTableSpaceStmt": "TABLESPACE", "DropTableSpaceStmt": "TABLESPACE", "AlterTableSpaceOptionsStmt": "TABLESPACE",
	"CreateExtensionStmt": "EXTENSION", "AlterExtensionStmt": "EXTENSION", "AlterExtensionContentsStmt": "EXTENSION",
	"CreateEnumStmt": "TYPE", "CreateRangeStmt": "TYPE", "CompositeTypeStmt": "TYPE", "AlterEnumStmt": "TYPE", "AlterTypeStmt": "TYPE",
	"CreateDomainStmt": "DOMAIN", "AlterDomainStmt": "DOMAIN", "CreateStatsStmt": "STATISTICS", "AlterStatsStmt": "STATISTICS",
	"CreatePolicyStmt": "POLICY", "AlterPolicyStmt": "POLICY", "CreatePublicationStmt": "PUBLICATION",
	"AlterPublicationStmt": "PUBLICATION", "CreateSubscriptionStmt": "SUBSCRIPTION", "AlterSubscriptionStmt": "SUBSCRIPTION",
	"DropSubscriptionStmt": "SUBSCRIPTION", "AlterSystemStmt": "SYSTEM", "AlterDefaultPrivilegesStmt": "DEFAULT PRIVILEGES",
	"DropOwnedStmt": "OWNED", "CreateCastStmt": "CAST", "CreateConversionStmt": "CONVERSION", "CreateAmStmt": "ACCESS METHOD",
	"CreateEventTrigStmt": "EVENT TRIGGER", "AlterEventTrigStmt": "EVENT TRIGGER", "CreatePLangStmt": "LANGUAGE",
	"CreateOpClassStmt": "OPERATOR CLASS", "CreateOpFamilyStmt": "OPERATOR FAMILY", "CreateTransformStmt": "TRANSFORM",
	"CreateFdwStmt": "FOREIGN DATA WRAPPER", "AlterFdwStmt": "FOREIGN DATA WRAPPER",
	"CreateForeignServerStmt": "SERVER", "AlterForeignServerStmt": "SERVER", "CreateUserMappingStmt": "USER MAPPING",
	"AlterUserMappingStmt": "USER MAPPING", "DropUserMappingStmt": "USER MAPPING",
}

// objectType reads the object type field that most other nodes have.
func objectType(m protoreflect.Message) string {
	for _, field := range []protoreflect.Name{"remove_type", "rename_type", "objtype", "object_type", "kind"} {
		d := m.Descriptor().Fields().ByName(field)
		if d == nil || d.Kind() != protoreflect.EnumKind || d.Enum().Name() != "ObjectType" {
			continue
		}
		name := strings.TrimPrefix(string(d.Enum().Values().ByNumber(m.Get(d).Enum()).Name()), "OBJECT_")
		switch name {
		case "TYPE_UNDEFINED":
			return ""
		case "MATVIEW":
			return "MATERIALIZED VIEW"
		case "COLUMN", "ATTRIBUTE", "TABCONSTRAINT":
			return "TABLE"
		case "STATISTIC_EXT":
			return "STATISTICS"
		case "FDW":
			return "FOREIGN DATA WRAPPER"
		case "FOREIGN_SERVER":
			return "SERVER"
		}
		return strings.ReplaceAll(name, "_", " ")
	}
	return ""
}

// dropped records the relations DROP names, which are bare name lists there.
func (c *collector) dropped(s *pgquery.DropStmt) {
	switch s.RemoveType {
	case pgquery.ObjectType_OBJECT_TABLE, pgquery.ObjectType_OBJECT_VIEW, pgquery.ObjectType_OBJECT_INDEX,
		pgquery.ObjectType_OBJECT_SEQUENCE, pgquery.ObjectType_OBJECT_MATVIEW, pgquery.ObjectType_OBJECT_FOREIGN_TABLE:
	default:
		return
	}
	for _, o := range s.Objects {
		schema, name := qualified(o.GetList().GetItems())
		c.table(&pgquery.RangeVar{Schemaname: schema, Relname: name})
	}
}
